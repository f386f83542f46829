// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

func TestMain(m *testing.M) {
	lxcfs.MaybeChild()
	if len(os.Args) > 1 && os.Args[0] == "lxcfs" { // see startLxcfs
		time.Sleep(time.Minute)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// startLxcfs starts a process that looks like an lxcfs on a directory.
func startLxcfs(t *testing.T, root string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The name of a process is that of the file it was started from.
	file := filepath.Join(t.TempDir(), "lxcfs")
	if err := os.Symlink(self, file); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(file)
	cmd.Args = []string{"lxcfs", "-f", root + "/"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func TestFindServers(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if _, serves, ok := openServer(os.Getpid(), []string{root}); ok || serves {
		t.Error("this process was taken for lxcfs")
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	before := time.Duration(ts.Nano())
	other, cmd := startLxcfs(t, t.TempDir()), startLxcfs(t, root)
	var found []server
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		// Before they are executed they have another name.
		_, _, ok := openServer(other.Process.Pid, nil)
		if found = findServers([]string{root}); ok && len(found) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("found %v", found)
		}
	}
	if found[0].start < before-tick {
		t.Errorf("started %v after boot, before the test at %v", found[0].start, before)
	}
	w := &watch{wake: -1, servers: found, mountinfo: -1}
	defer w.forget()
	if got := w.wait(50 * time.Millisecond); got != timedOut {
		t.Errorf("while it lives: %v", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := w.wait(20 * time.Second); got != serverEnded {
		t.Errorf("after its end: %v", got)
	}
}

func TestLate(t *testing.T) {
	t.Parallel()
	of := func(root string, seen time.Duration) *member {
		return &member{Container: Container{Root: root, Seen: seen}}
	}
	for _, c := range []struct {
		name    string
		servers []server
		members []*member
		want    bool
	}{
		{"not found", nil, []*member{of("/l", time.Hour)}, true},
		{"older", []server{{start: time.Minute}}, []*member{of("/l", time.Hour)}, false},
		{"younger", []server{{start: 2 * time.Hour}}, []*member{of("/l", time.Hour)}, true},
		{"as old", []server{{start: time.Hour}}, []*member{of("/l", time.Hour)}, true},
		{"without files", []server{{start: 2 * time.Hour}}, []*member{of("", 0), of("/l", 3*time.Hour)}, false},
	} {
		if got := (&watch{servers: c.servers}).late(c.members); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// A shim without containers has no watch, and nothing of one is left.
func TestAddRemove(t *testing.T) {
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := descriptors()
	var h Healer
	for range 3 {
		for n := range 2 {
			c := Container{ID: fmt.Sprint(n), PID: os.Getpid(), LXCFS: config.LXCFS{TimeoutMS: 500, Path: "/nowhere"}}
			if err := h.Add(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		h.Remove("0")
		h.Remove("1")
		h.Remove("unknown")
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			h.mu.Lock()
			running := h.running
			h.mu.Unlock()
			if !running && descriptors() == before {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("running %v, %d descriptors, %d at first", running, descriptors(), before)
			}
		}
	}
	if err := h.Add(t.Context(), Container{ID: "gone", PID: 1 << 22}); err == nil {
		t.Error("a process that does not exist was added")
	}
}
