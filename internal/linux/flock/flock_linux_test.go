// SPDX-License-Identifier: Apache-2.0

package flock

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDenied(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ label, want string }{
		{"snap.microk8s.daemon-containerd (enforce)\n", "AppArmor profile snap.microk8s.daemon-containerd, "},
		{"a//&b (mixed)\n\x00", "AppArmor profile a//&b, "},
		{"unconfined\n", "a security module denies"},
		{"runc (unconfined)\n", "a security module denies"},
		{"system_u:system_r:container_runtime_t:s0\x00", "a security module denies"},
		{"", "a security module denies"},
	} {
		err := denied("/run/isolate/.ids/lock", tt.label, unix.EACCES)
		if !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "/run/isolate/.ids/lock") {
			t.Errorf("%q: %v", tt.label, err)
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in   error
		want string
	}{
		{in: unix.EACCES, want: "denies file locks"},
		{in: unix.EPERM, want: "denies file locks"},
		{in: unix.ENOLCK, want: "flock /x: no locks available"},
		{in: unix.EWOULDBLOCK, want: ErrLocked.Error()},
	} {
		if got := explain("/x", tc.in); got == nil || !strings.Contains(got.Error(), tc.want) {
			t.Errorf("%v gave %v, want it to say %q", tc.in, got, tc.want)
		}
	}
	if err := explain("/x", nil); err != nil {
		t.Error(err)
	}
}

func TestLocks(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/lock"
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	a, b := open(), open()
	for _, step := range []struct {
		name string
		do   func() error
		want error
	}{
		{"first", func() error { return Exclusive(a) }, nil},
		{"second", func() error { return Exclusive(b) }, ErrLocked},
		{"shared beside exclusive", func() error { return Shared(b) }, ErrLocked},
		{"from exclusive to shared", func() error { return Shared(a) }, nil},
		{"shared beside shared", func() error { return Shared(b) }, nil},
		{"exclusive beside shared", func() error { return Exclusive(a) }, ErrLocked},
		{"close", func() error { return Close(b) }, nil},
		{"exclusive alone", func() error { return Exclusive(a) }, nil},
		{"close the last", func() error { return Close(a) }, nil},
		{"close none", func() error { return Close(nil) }, nil},
	} {
		if err := step.do(); !errors.Is(err, step.want) {
			t.Errorf("%s: %v, want %v", step.name, err, step.want)
		}
	}
}
