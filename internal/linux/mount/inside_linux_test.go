// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/internal/linux/thread"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

// contain is the init of a container: the directory is its root, with a proc of
// its own.
func contain(args []string) error {
	if err := unix.Mount("proc", args[0]+"/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := unix.Chroot(args[0]); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return testmounts.Sit(nil)
}

// container starts a container with its root below dir and returns its pid.
func container(t *testing.T, dir string) int {
	t.Helper()
	root := dir + "/root"
	testmounts.Mkdir(t, root+"/proc")
	testmounts.Write(t, root+"/etc/target", "the image's")
	testmounts.Check(t, os.Symlink("/proc/meminfo", root+"/link"))
	testmounts.Check(t, os.Symlink("proc", root+"/dirlink"))
	cmd := testmounts.Program(t, idmap.Contiguous(300000, 65536), "contain", root)
	cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWPID
	return testmounts.Start(t, cmd)
}

// seen returns what a file holds in the container.
func seen(pid int, path string) string {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", pid, path))
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// held holds a process until the test ends.
func held(t *testing.T, pid int) *proc.Process {
	t.Helper()
	p, err := proc.Open(pid)
	testmounts.Check(t, err)
	t.Cleanup(func() { testmounts.Close(t, p) })
	return p
}

func TestInside(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	pid := container(t, dir)
	testmounts.Write(t, dir+"/first", "first")
	testmounts.Write(t, dir+"/second", "second")
	magic := []int64{unix.PROC_SUPER_MAGIC}

	attachInside := func(source, path string, target Target) error {
		m, err := CloneTree(-1, dir+"/"+source, CloneOptions{})
		testmounts.Check(t, err)
		defer testmounts.Close(t, m)
		return InNamespace(held(t, pid), func(in *Inside) error { return in.Attach(m, path, target) })
	}
	kernel := seen(pid, "/proc/meminfo")
	if !strings.Contains(kernel, "MemTotal") {
		t.Fatalf("meminfo is %q", kernel)
	}
	for _, tc := range []struct {
		name, source, path string
		target             Target
		is                 error
		want               string // what /proc/meminfo holds afterwards, kernel's if empty
	}{
		{name: "wrong file system", source: "first", path: "/etc/target", target: Target{Magic: magic}, is: ErrWrongFileSystem},
		{name: "symbolic link", source: "first", path: "/link", is: unix.ELOOP},
		{name: "symbolic link on the way", source: "first", path: "/dirlink/meminfo", is: unix.ELOOP},
		{name: "magic link", source: "first", path: "/proc/self/root/proc/meminfo", is: unix.ELOOP},
		{name: "missing", source: "first", path: "/proc/nothing", is: unix.ENOENT},
		{name: "attach, from above the root", source: "first", path: "../../proc/meminfo", target: Target{Magic: magic}, want: "first"},
		{name: "occupied", source: "second", path: "/proc/meminfo", target: Target{Magic: magic}, is: ErrMounted, want: "first"},
		{name: "replace", source: "second", path: "/proc/meminfo", target: Target{Magic: magic, Replace: true}, want: "second"},
		{name: "replace again", source: "first", path: "/proc/meminfo", target: Target{Magic: magic, Replace: true}, want: "first"},
		{name: "replace on the wrong file system", source: "first", path: "/etc/target", target: Target{Magic: magic, Replace: true}, is: ErrWrongFileSystem, want: "first"},
	} {
		err := attachInside(tc.source, tc.path, tc.target)
		if !errors.Is(err, tc.is) {
			t.Errorf("%s: error %v, want %v", tc.name, err, tc.is)
		}
		got := seen(pid, "/proc/meminfo")
		if tc.want == "" && !strings.Contains(got, "MemTotal") || tc.want != "" && got != tc.want {
			t.Errorf("%s: meminfo is now %q", tc.name, got)
		}
		if got := seen(pid, "/etc/target"); got != "the image's" {
			t.Errorf("%s: target is now %q", tc.name, got)
		}
	}
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	testmounts.Check(t, err)
	if n := strings.Count(string(table), "/proc/meminfo "); n != 1 {
		t.Errorf("%d mounts on meminfo", n)
	}
	for range 2 {
		testmounts.Check(t, InNamespace(held(t, pid), func(in *Inside) error { return in.Detach("/proc/meminfo") }))
		if got := seen(pid, "/proc/meminfo"); !strings.Contains(got, "MemTotal") {
			t.Errorf("detached meminfo is %q", got)
		}
	}
	if err := InNamespace(held(t, pid), func(in *Inside) error { return in.Detach("/") }); err == nil {
		t.Error("detached the root")
	}
	if found := testmounts.Lines(t, "meminfo"); found != "" {
		t.Errorf("mounts outside:\n%s", found)
	}
}

// TestAttachToRoot attaches where nothing is mounted, and only below the very root.
func TestAttachToRoot(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	testmounts.Mkdir(t, dir+"/root/store")
	testmounts.Check(t, os.Symlink("store", dir+"/root/storelink"))
	testmounts.Write(t, dir+"/source/file", "attached")
	pid := container(t, dir)
	attach := func(root, path string) error {
		m, err := CloneTree(-1, dir+"/source", CloneOptions{})
		testmounts.Check(t, err)
		defer testmounts.Close(t, m)
		expected, err := os.Open(root)
		testmounts.Check(t, err)
		defer testmounts.Close(t, expected)
		return InNamespace(held(t, pid), func(in *Inside) error { return in.AttachToRoot(m, expected, path) })
	}
	for _, tc := range []struct {
		root, path string
		is         error
	}{
		{root: dir, path: "/store", is: ErrNotThere},
		{root: dir + "/root", path: "/storelink", is: unix.ELOOP},
		{root: dir + "/root", path: "/etc/target", is: unix.ENOTDIR},
		{root: dir + "/root", path: "/absent", is: unix.ENOENT},
		{root: dir + "/root", path: "/proc", is: ErrMounted},
		{root: dir + "/root", path: "/proc/self", is: ErrMounted},
		{root: dir + "/root", path: "/store"},
		{root: dir + "/root", path: "/store", is: ErrMounted},
	} {
		before := seen(pid, "/store/file")
		if err := attach(tc.root, tc.path); !errors.Is(err, tc.is) {
			t.Errorf("%s on %s: error %v, want %v", tc.path, tc.root, err, tc.is)
		}
		if got := seen(pid, "/store/file"); tc.is == nil && got != "attached" || tc.is != nil && got != before {
			t.Errorf("%s on %s: file is %q", tc.path, tc.root, got)
		}
	}
}

// TestInsideMount finds and detaches one mount by its id, and no other.
func TestInsideMount(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	pid := container(t, dir)
	for _, name := range []string{"lower", "upper"} {
		testmounts.Write(t, dir+"/"+name, name)
		m, err := CloneTree(-1, dir+"/"+name, CloneOptions{})
		testmounts.Check(t, err)
		// The second is stacked on the first, as a container might do it.
		testmounts.Check(t, InNamespace(held(t, pid), func(in *Inside) error {
			target, err := in.Open("/proc/meminfo", unix.O_PATH)
			if err != nil {
				return err
			}
			return errors.Join(moveMount(m, int(target.Fd()), "", 0), target.Close())
		}))
		testmounts.Close(t, m)
	}
	ids := map[string]int{}
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	testmounts.Check(t, err)
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if f[4] == "/proc/meminfo" {
			id, err := strconv.Atoi(f[0])
			testmounts.Check(t, err)
			ids[path.Base(f[3])] = id
		}
	}
	if len(ids) != 2 {
		t.Fatalf("mounts %v in\n%s", ids, table)
	}
	open := func(name string) (string, error) {
		var f *os.File
		err := InNamespace(held(t, pid), func(in *Inside) (err error) {
			f, err = in.OpenMount("proc/meminfo", ids[name])
			return err
		})
		if err != nil {
			return "", err
		}
		defer testmounts.Close(t, f)
		data, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		return string(data), err
	}
	detach := func(name string) error {
		return InNamespace(held(t, pid), func(in *Inside) error { return in.DetachMount("proc/meminfo", ids[name]) })
	}
	if got, err := open("upper"); err != nil || got != "upper" {
		t.Errorf("the upper one holds %q, %v", got, err)
	}
	if _, err := open("lower"); !errors.Is(err, ErrNotThere) {
		t.Errorf("the lower one was opened: %v", err)
	}
	if err := detach("lower"); !errors.Is(err, ErrNotThere) || seen(pid, "/proc/meminfo") != "upper" {
		t.Errorf("below another: %v", err)
	}
	testmounts.Check(t, detach("upper"))
	if got := seen(pid, "/proc/meminfo"); got != "lower" {
		t.Errorf("then it is %q", got)
	}
	if err := detach("upper"); !errors.Is(err, ErrNotThere) {
		t.Errorf("a second time: %v", err)
	}
	testmounts.Check(t, detach("lower"))
	if err := detach("lower"); !errors.Is(err, ErrNotThere) || !strings.Contains(seen(pid, "/proc/meminfo"), "MemTotal") {
		t.Errorf("nothing there: %v", err)
	}
	for _, path := range []string{"/link", "/dirlink/meminfo", "/proc/nothing"} {
		if err := InNamespace(held(t, pid), func(in *Inside) error { return in.DetachMount(path, ids["lower"]) }); err == nil {
			t.Errorf("detached %s", path)
		}
	}
}

// TestInsideHungServer: a file system whose server does not answer, such as a
// stopped lxcfs, is detached and replaced without waiting for it.
func TestInsideHungServer(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	pid := container(t, dir)
	// Nobody ever reads from this connection.
	server, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	testmounts.Check(t, err)
	t.Cleanup(func() { testmounts.Close(t, server) })
	testmounts.Write(t, dir+"/hung", "")
	testmounts.Write(t, dir+"/fresh", "fresh")
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,allow_other", server.Fd(), unix.S_IFREG)
	testmounts.Check(t, unix.Mount("hung", dir+"/hung", "fuse", 0, options))
	t.Cleanup(func() { testmounts.Unmount(t, dir+"/hung") })
	hung, err := openTree(-1, dir+"/hung", "hung", false)
	testmounts.Check(t, err)
	defer testmounts.Close(t, hung)
	fresh, err := CloneTree(-1, dir+"/fresh", CloneOptions{})
	testmounts.Check(t, err)
	defer testmounts.Close(t, fresh)

	done := make(chan error, 1)
	go func() {
		done <- InNamespace(held(t, pid), func(in *Inside) error {
			if err := in.Attach(hung, "/proc/meminfo", Target{}); err != nil {
				return err
			}
			on := Target{Magic: []int64{unix.PROC_SUPER_MAGIC}}
			if err := in.Attach(fresh, "/proc/meminfo", on); !errors.Is(err, ErrMounted) {
				return fmt.Errorf("over the hung file: %w", err)
			}
			on.Replace = true
			return in.Attach(fresh, "/proc/meminfo", on)
		})
	}()
	select {
	case err := <-done:
		testmounts.Check(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("waits for the server")
	}
	if got := seen(pid, "/proc/meminfo"); got != "fresh" {
		t.Errorf("meminfo is %q", got)
	}
}

func TestInsideRefusals(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	never := func(*Inside) error { t.Error("ran"); return nil }
	if err := InNamespace(held(t, os.Getpid()), never); err == nil || !strings.Contains(err.Error(), "no mount namespace of its own") {
		t.Errorf("own namespace: %v", err)
	}
	child := exec.Command("sleep", "100")
	testmounts.Check(t, child.Start())
	gone := held(t, child.Process.Pid)
	testmounts.Check(t, child.Process.Kill())
	_ = child.Wait()
	if err := InNamespace(gone, never); !errors.Is(err, proc.ErrEnded) {
		t.Errorf("process that has ended: %v", err)
	}
	pid := container(t, testmounts.Dir(t))
	for name, fn := range map[string]func(*Inside) error{
		"panic": func(*Inside) error { panic("oh no") },
		"ended": func(*Inside) error { runtime.Goexit(); return nil },
	} {
		if err := InNamespace(held(t, pid), fn); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestThreadsStayClean: whatever disposable threads do to themselves, the main
// thread and all others keep credentials, root and mount namespace.
func TestThreadsStayClean(t *testing.T) {
	testmounts.RequireRoot(t)
	pid := container(t, testmounts.Dir(t))
	mounts, err := os.Readlink("/proc/self/ns/mnt")
	testmounts.Check(t, err)
	for range 300 {
		testmounts.Check(t, thread.Run(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("on the main thread")
			}
			return thread.SetFSIDs(12345, 12345)
		}))
		testmounts.Check(t, InNamespace(held(t, pid), func(in *Inside) error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("on the main thread")
			}
			_, err := os.Stat("/etc/target")
			return err
		}))
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		dirty := dirtyThreads(t, mounts)
		if dirty == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(dirty)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func dirtyThreads(t *testing.T, mounts string) string {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	testmounts.Check(t, err)
	for _, task := range tasks {
		dir := "/proc/self/task/" + task.Name()
		status, err := os.ReadFile(dir + "/status")
		if err != nil {
			continue // it has just ended
		}
		for line := range strings.Lines(string(status)) {
			if ids, ok := strings.CutPrefix(line, "Uid:"); ok && strings.Contains(ids, "12345") {
				return task.Name() + " has " + line
			}
		}
		ns, err := os.Readlink(dir + "/ns/mnt")
		if err == nil && ns != mounts {
			return task.Name() + " is in " + ns
		}
		root, err := os.Readlink(dir + "/root")
		if err == nil && root != "/" {
			return task.Name() + " has root " + root
		}
	}
	return ""
}
