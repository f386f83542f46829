// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/shim/apparmor"
)

// parser puts an apparmor_parser on the PATH until the test ends.
func parser(t *testing.T, name peer.Name) {
	t.Helper()
	p, err := peer.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(p.Program("apparmor_parser"))+":"+os.Getenv("PATH"))
}

// loaded returns the profiles that the kernel has, with their modes.
func loaded(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("/sys/kernel/security/apparmor/profiles")
	if err != nil {
		t.Fatal(err)
	}
	profiles := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, mode, _ := strings.Cut(strings.TrimSpace(line), " ")
		profiles[name] = mode
	}
	return profiles
}

// load loads isolate-default until the test ends.
func load(t *testing.T, name peer.Name) {
	t.Helper()
	parser(t, name)
	if loaded(t)[apparmor.Name] != "" {
		t.Fatalf("%s is loaded already: by this machine's administrator?", apparmor.Name)
	}
	n := newest(t)
	rig.Exec(t.Context(), filepath.Join(n.Bin, "isolatectl"), "apparmor", "load").Must(t)
	t.Cleanup(func() {
		rig.Exec(context.Background(), filepath.Join(n.Bin, "isolatectl"), "apparmor", "unload").Must(t)
		if mode := loaded(t)[apparmor.Name]; mode != "" {
			t.Errorf("%s is still loaded: %s", apparmor.Name, mode)
		}
		if _, err := os.Stat(apparmor.File); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", apparmor.File, err)
		}
	})
	if mode := loaded(t)[apparmor.Name]; mode != "(enforce)" {
		t.Fatalf("%s is %q after loading it", apparmor.Name, mode)
	}
}

// define loads a profile of the test's own until the test ends.
func define(t *testing.T, name, body string) {
	t.Helper()
	if loaded(t)[name] != "" {
		t.Fatalf("profile %s is loaded already", name)
	}
	file := filepath.Join(t.TempDir(), "profile")
	text := fmt.Sprintf("profile %s %s\n", name, body)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	rig.Exec(t.Context(), "apparmor_parser", "--skip-cache", "--add", file).Must(t)
	t.Cleanup(func() { remove(t, name) })
}

// remove removes a profile, which may be one that containerd has loaded.
func remove(t *testing.T, name string) {
	t.Helper()
	if loaded(t)[name] == "" {
		return
	}
	file := filepath.Join(t.TempDir(), "remove")
	if err := os.WriteFile(file, []byte("profile "+name+" {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rig.Exec(context.Background(), "apparmor_parser", "--remove", file).Must(t)
}

// events follows the kernel's log of AppArmor.
type events struct{ seen int }

// watch begins to follow it.
func watch(t *testing.T) *events {
	t.Helper()
	const limit = "/proc/sys/kernel/printk_ratelimit"
	before, err := os.ReadFile(limit)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(limit, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(limit, before, 0); err != nil {
			t.Error(err)
		}
	})
	e := &events{}
	e.next(t)
	return e
}

var event = regexp.MustCompile(`apparmor="(STATUS|DENIED)".*`)

// next returns what was logged since the last call.
func (e *events) next(t *testing.T) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(rig.Exec(t.Context(), "dmesg", "--notime").Must(t)) {
		if found := event.FindString(line); found != "" {
			all = append(all, strings.TrimSpace(found))
		}
	}
	fresh := all[min(e.seen, len(all)):]
	e.seen = len(all)
	return fresh
}

// denied are the denials of a profile among events.
func denied(list []string, profile string) []string {
	var out []string
	for _, line := range list {
		if strings.HasPrefix(line, `apparmor="DENIED"`) && strings.Contains(line, `profile="`+profile+`"`) {
			out = append(out, line)
		}
	}
	return out
}
