// SPDX-License-Identifier: Apache-2.0

package ns

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUserns has a process in namespaces of its own, and this one.
func TestUserns(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const root = 300000
	cmd := exec.Command("sleep", "100")
	ids := []syscall.SysProcIDMap{{HostID: root, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWPID, UidMappings: ids, GidMappings: ids}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	at := func(pid any, kind string) string { return fmt.Sprintf("/proc/%v/ns/%s", pid, kind) }
	for _, c := range []struct {
		of    string
		above func(*os.File) (*os.File, error)
		want  string
	}{
		{at(cmd.Process.Pid, "net"), Userns, at(cmd.Process.Pid, "user")},
		{at(cmd.Process.Pid, "user"), Userns, at("self", "user")},
		{at("self", "net"), Userns, at("self", "user")},
		{at(cmd.Process.Pid, "pid"), Parent, at("self", "pid")},
	} {
		f, err := os.Open(c.of)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		above, err := c.above(f)
		if err != nil {
			t.Fatal(err)
		}
		defer above.Close()
		got, err := Of(above)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := At(c.want); err != nil || got != want {
			t.Errorf("above %s is %v, want %v, %v", c.of, got, want, err)
		}
		if own, err := Of(f); err != nil || own == got {
			t.Errorf("%s is above itself: %v", c.of, err)
		}
		if flags, err := unix.FcntlInt(above.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("flags %#x, %v: not closed on exec", flags, err)
		}
	}
	theirs, err := os.Open(at(cmd.Process.Pid, "user"))
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	// The first process of this test made it.
	if owner, err := Owner(theirs); err != nil || int(owner) != os.Geteuid() {
		t.Errorf("it belongs to %d, %v", owner, err)
	}
}

func TestNoNamespace(t *testing.T) {
	t.Parallel()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Userns(f); err == nil {
		t.Error("a file that is no namespace belongs to one")
	}
	if _, err := Own("none"); err == nil {
		t.Error("a namespace of no kind")
	}
	f.Close()
	if _, err := Of(f); err == nil {
		t.Error("a closed file is a namespace")
	}
}
