// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/fusetest"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/internal/testmounts"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/member"
)

// stuckName is argv[0] of a process whose main thread ends, and no other one.
const stuckName = "stuck"

func init() { // the main thread runs it
	if os.Args[0] == stuckName {
		time.AfterFunc(time.Minute, func() { os.Exit(0) })
		unix.Syscall(unix.SYS_EXIT, 0, 0, 0) //nolint:errcheck // does not return
	}
}

func TestMain(m *testing.M) {
	lxcfs.MaybeChild()
	MaybeChild()
	if len(os.Args) > 1 && os.Args[0] == "lxcfs" { // see startLxcfs
		time.Sleep(time.Minute)
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[0] == rootedName {
		os.Exit(rooted(os.Args[1]))
	}
	os.Exit(testmounts.Run(m))
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
	if _, ok := openServer(os.Getpid(), []string{root}); ok {
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
		_, ok := openServer(other.Process.Pid, nil)
		if found = findServers([]string{root}); ok && len(found) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("found %v", found)
		}
	}
	if found[0].start < before-proc.Tick {
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

// TestEndOfAnother: the end of one lxcfs is not that of others.
func TestEndOfAnother(t *testing.T) {
	t.Parallel()
	roots := []string{t.TempDir(), t.TempDir()}
	first, second := startLxcfs(t, roots[0]), startLxcfs(t, roots[1])
	count := func() int {
		list := findServers(roots)
		for _, s := range list {
			s.Close()
		}
		return len(list)
	}
	for deadline := time.Now().Add(20 * time.Second); count() < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("they are not found")
		}
	}
	all := make([]*watched, 2)
	for n, root := range roots {
		all[n] = &watched{Container: Container{Origin: lxcfs.Origin{Root: root, Device: lxcfs.Device{0, n + 1}, Seen: 1 << 62}}}
	}
	w := &watch{wake: -1, mountinfo: -1}
	defer w.forget()
	if !w.search(t.Context(), all) || len(w.servers) != 2 {
		t.Fatalf("servers %v", w.servers)
	}
	w.end(all)
	if all[0].ended != (lxcfs.Device{}) || all[1].ended != (lxcfs.Device{}) {
		t.Error("one counts as ended while both live")
	}
	for n, cmd := range []*exec.Cmd{second, first} {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for _, s := range w.servers {
			if s.PID() != cmd.Process.Pid {
				continue
			}
			if ended, err := s.Ended(20 * time.Second); !ended || err != nil {
				t.Fatal(ended, err)
			}
		}
		w.end(all)
		if all[1].ended != all[1].Device || (all[0].ended == all[0].Device) != (n == 1) {
			t.Errorf("after the end of %d: %v of %v, %v of %v have ended", n+1, all[0].ended, all[0].Device, all[1].ended, all[1].Device)
		}
	}
}

func TestReplaced(t *testing.T) {
	t.Parallel()
	files := Container{Origin: lxcfs.Origin{Root: "/l", Seen: time.Hour}}
	for _, c := range []struct {
		name           string
		servers        []server
		container      Container
		replaced, gone bool
	}{
		{"not found", nil, files, true, true},
		{"older", []server{{start: time.Minute}}, files, false, false},
		{"younger", []server{{start: 2 * time.Hour}}, files, true, true},
		{"as old", []server{{start: time.Hour}}, files, true, false},
		{"one of two younger", []server{{start: time.Minute}, {start: 2 * time.Hour}}, files, true, false},
		{"without files", []server{{start: 2 * time.Hour}}, Container{}, false, true},
	} {
		w, m := &watch{servers: c.servers}, &watched{Container: c.container}
		if got := w.replaced(m); got != c.replaced {
			t.Errorf("%s: replaced %v", c.name, got)
		}
		if got := w.gone(m); got != c.gone {
			t.Errorf("%s: gone %v", c.name, got)
		}
	}
}

func TestServes(t *testing.T) {
	t.Parallel()
	files := lxcfs.Origin{Root: "/l", Seen: time.Hour}
	for _, c := range []struct {
		name   string
		server server
		want   bool
	}{
		{"older", server{start: time.Minute, roots: []string{"/other", "/l"}}, true},
		{"younger", server{start: 2 * time.Hour, roots: []string{"/l"}}, false},
		{"as old", server{start: time.Hour, roots: []string{"/l"}}, true},
		{"elsewhere", server{start: time.Minute, roots: []string{"/other"}}, false},
		{"who knows where", server{start: time.Minute}, true},
	} {
		if got := c.server.serves(files); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// container starts the first process of one.
func container(t *testing.T) *member.Process {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	return verified(t, exec.Command("sleep", "100"))
}

// verified starts a program as the first process of a container.
func verified(t *testing.T, cmd *exec.Cmd) *member.Process {
	t.Helper()
	const first, size = 1700000000, 65536
	ids := []syscall.SysProcIDMap{{HostID: first, Size: size}}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS
	cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
	cmd.SysProcAttr.GidMappingsEnableSetgroups = true
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p, err := member.Verify(cmd.Process.Pid, member.Container{Mapping: idmap.Contiguous(first, size)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
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
	init := container(t)
	before := descriptors()
	var h Healer
	for range 3 {
		for n := range 2 {
			c := Container{ID: fmt.Sprint(n), Init: init, LXCFS: config.LXCFS{TimeoutMS: 500, Path: "/nowhere"}}
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
	if err := init.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if ended, err := init.Ended(-1); !ended || err != nil {
		t.Fatal(ended, err)
	}
	if err := h.Add(t.Context(), Container{ID: "gone", Init: init}); err == nil {
		t.Error("a process that has ended was added")
	}
}

// TestGivesMemoryBack: after work, once nothing is pending.
func TestGivesMemoryBack(t *testing.T) {
	wake, err := unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK) // woken up already
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(wake)
	w := &watch{wake: wake, mountinfo: -1, worked: true}
	defer w.unwatchMounts()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w.step(t.Context(), nil)
	runtime.ReadMemStats(&after)
	if after.NumForcedGC == before.NumForcedGC || w.worked {
		t.Errorf("%d forced collections, work to do: %v", after.NumForcedGC-before.NumForcedGC, w.worked)
	}
}

// TestRestlessMounts: where mounts change all the time, an lxcfs that comes is not
// noticed only when all mounts are read again.
func TestRestlessMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for mounts")
	}
	dir := t.TempDir()
	all := []*watched{{Container: Container{LXCFS: config.LXCFS{Path: dir}}}}
	w := &watch{wake: -1, mountinfo: -1, pause: time.Hour, last: time.Now(), mounts: lxcfsMounts(), heads: heads(all), tries: maxTries}
	rested := make(chan struct{})
	go func() {
		defer close(rested)
		w.rest(all)
	}()
	server, err := fusetest.Mount("/dev/fuse", dir, "fuse.lxcfs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	select {
	case <-rested:
	case <-time.After(time.Minute):
		t.Fatal("nobody has noticed it")
	}
	w.pause = 0
	if w.settle(all); !all[0].stale {
		t.Error("nobody would take its files")
	}
	// One that comes back as it was, also in the numbers that the kernel gave it.
	all[0].stale, w.mounts, w.tries, w.last = false, lxcfsMounts(), 2, time.Now().Add(-soon(2))
	if w.settle(all); !all[0].stale || w.tries != 3 {
		t.Errorf("after %v: stale %v, try %d", soon(2), all[0].stale, w.tries)
	}
	all[0].stale, w.last = false, time.Now().Add(time.Hour)
	if w.settle(all); all[0].stale || w.tries != 3 || w.pause == 0 {
		t.Errorf("at once: stale %v, try %d, next pause %v", all[0].stale, w.tries, w.pause)
	}
}
