// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/testmounts"
	"github.com/isolate-shim/isolate/shim/member"
)

const asContainer = "ISOLATE_TEST_CONTAINER"

// owner is the root of the test containers.
var owner = idmap.Owner{UID: 1700000000, GID: 1700000000}

func TestMain(m *testing.M) {
	if os.Getenv(asContainer) != "" {
		container()
		return
	}
	os.Exit(testmounts.RunCgroup2(m))
}

// container is the first process of a container. It waits until it was put into
// its groups, then makes its view of them, then tries what it is told to.
func container() {
	runtime.LockOSThread()
	lines := bufio.NewScanner(os.Stdin)
	lines.Scan()
	err := unix.Unshare(unix.CLONE_NEWCGROUP)
	if err == nil && lines.Text() == "v2" {
		err = unix.Mount("cgroup", mountpoint, "cgroup2", 0, "")
	}
	for fmt.Println(err); lines.Scan(); fmt.Println(err) {
		verb, path, _ := strings.Cut(lines.Text(), " ")
		switch verb {
		case "mkdir":
			err = os.Mkdir(path, 0o755)
		case "rmdir":
			err = os.Remove(path)
		case "write":
			path, text, _ := strings.Cut(path, " ")
			err = os.WriteFile(path, []byte(text), 0)
		case "groups":
			var content []byte
			content, err = os.ReadFile("/proc/self/cgroup")
			if err == nil {
				err = errors.New(strings.ReplaceAll(string(content), "\n", " "))
			}
		}
	}
}

type process struct {
	*exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

func start(t *testing.T) *process {
	t.Helper()
	p := &process{Cmd: exec.CommandContext(t.Context(), "/proc/self/exe")}
	p.Env = append(os.Environ(), asContainer+"=1")
	p.Stderr = os.Stderr
	ids := func(host int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: host, Size: 65536}}
	}
	p.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		UidMappings:                ids(int(owner.UID)),
		GidMappings:                ids(int(owner.GID)),
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{},
		Pdeathsig:                  syscall.SIGKILL,
	}
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewScanner(out)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		p.Wait() //nolint:errcheck // its errors were answers
	})
	return p
}

// try has the container do something and returns the error.
func (p *process) try(t *testing.T, format string, args ...any) string {
	t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		t.Fatal(err)
	}
	if !p.out.Scan() {
		t.Fatalf("the container ended: %v", p.out.Err())
	}
	return p.out.Text()
}

// enter makes a group in each hierarchy that is mounted and moves p there. The
// groups are gone after the test.
func enter(t *testing.T, p *process, wanted func(*mountinfo.Info) bool) (dirs []string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if !wanted(m) {
			continue
		}
		dir := fmt.Sprintf("%s/isolate-test-%d", m.Mountpoint, p.Process.Pid)
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, os.ErrExist) { // the hierarchy is mounted twice
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // runs before the process ends
			os.WriteFile(filepath.Join(m.Mountpoint, "cgroup.procs"), fmt.Append(nil, p.Process.Pid), 0) //nolint:errcheck // next line fails
			var err error
			for range 100 { // the kernel lets go of controllers a little later
				entries, _ := filepath.Glob(dir + "/*")
				for _, entry := range append(entries, dir) {
					err = unix.Rmdir(entry) // the last one counts
				}
				if err == nil || errors.Is(err, os.ErrNotExist) {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Errorf("left behind: %v", err)
		})
		// A new cpuset takes no process before it has processors and memory.
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
			content, err := os.ReadFile(filepath.Join(m.Mountpoint, name))
			if err == nil && m.FSType == "cgroup" {
				err = os.WriteFile(filepath.Join(dir, name), content, 0)
			}
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, p.Process.Pid), 0); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	if len(dirs) == 0 {
		t.Skip("needs a mounted hierarchy of cgroup v1")
	}
	return dirs
}

func verified(t *testing.T, p *process) *member.Process {
	t.Helper()
	init, err := member.Verify(p.Process.Pid, member.Container{Mapping: idmap.Contiguous(owner.UID, 65536)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { init.Close() })
	return init
}

func owned(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		switch {
		case st.Uid == uint32(owner.UID) && st.Gid == uint32(owner.GID):
			rel, _ := filepath.Rel(dir, path)
			names = append(names, rel)
		case st.Uid != 0 || st.Gid != 0:
			t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func v1(m *mountinfo.Info) bool { return m.FSType == "cgroup" }
func v2(m *mountinfo.Info) bool { return m.FSType == "cgroup2" }

func TestDelegateV1(t *testing.T) {
	p := start(t)
	dirs := enter(t, p, v1)
	if answer := p.try(t, "v1"); answer != "<nil>" {
		t.Fatal(answer)
	}
	for range 2 { // the second time changes nothing
		r, err := Delegate(verified(t, p), owner, Options{Leaf: true})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(r.Delegated)
		slices.Sort(dirs)
		if !slices.Equal(r.Delegated, dirs) || r.Leaf != "" {
			t.Errorf("delegated %q, leaf %q; want %q and none", r.Delegated, r.Leaf, dirs)
		}
	}
	for _, dir := range dirs {
		if got := owned(t, dir); !slices.Equal(got, []string{".", "cgroup.procs", "tasks"}) {
			t.Errorf("%s: given away were %q", dir, got)
		}
	}
	for _, dir := range dirs {
		if answer := p.try(t, "mkdir %s/inner", dir); answer != "<nil>" {
			t.Errorf("inner group: %s", answer)
		}
		// What is already there belongs to the container: still delegable.
		if _, err := Delegate(verified(t, p), owner, Options{}); err != nil {
			t.Error(err)
		}
		if answer := p.try(t, "rmdir %s/inner", dir); answer != "<nil>" {
			t.Errorf("inner group: %s", answer)
		}
	}
	limits := 0
	for _, dir := range dirs {
		for _, name := range []string{"memory.limit_in_bytes", "pids.max", "cpuset.cpus", "devices.allow", "cpu.shares", "notify_on_release", "cgroup.clone_children"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				continue
			}
			limits++
			if answer := p.try(t, "write %s/%s 1", dir, name); !strings.Contains(answer, "permission denied") {
				t.Errorf("the container wrote %s: %s", name, answer)
			}
		}
	}
	if limits == 0 {
		t.Error("no limit was tried")
	}
}

// enable makes a controller available to the groups below the root, as runtimes
// do, until the test ends.
func enable(t *testing.T) {
	t.Helper()
	mounts, err := mountinfo.GetMounts(v2Filter)
	if err != nil {
		t.Fatal(err)
	}
	if len(mounts) == 0 {
		t.Skip("needs a mounted cgroup v2 hierarchy")
	}
	root := mounts[0].Mountpoint
	controllers, err := os.ReadFile(root + "/cgroup.controllers")
	if err != nil {
		t.Fatal(err)
	}
	if len(controllers) < 2 {
		t.Skip("needs a controller on cgroup v2")
	}
	enabled, err := os.ReadFile(root + "/cgroup.subtree_control")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range strings.Fields(string(controllers)) {
		if slices.Contains(strings.Fields(string(enabled)), c) {
			continue
		}
		if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+"+c), 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			// EBUSY: somebody else uses it by now.
			os.WriteFile(root+"/cgroup.subtree_control", []byte("-"+c), 0) //nolint:errcheck // see above
		})
	}
}

func v2Filter(m *mountinfo.Info) (skip, stop bool) { return !v2(m), false }

func TestDelegateV2(t *testing.T) {
	enable(t)
	p := start(t)
	dir := enter(t, p, v2)[0]
	if answer := p.try(t, "v2"); answer != "<nil>" {
		t.Fatal(answer)
	}
	r, err := Delegate(verified(t, p), owner, Options{MaxDescendants: 3, MaxDepth: 2})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.Delegated, []string{dir}) || r.Leaf != "" {
		t.Errorf("delegated %q with leaf %q, want %q alone", r.Delegated, r.Leaf, dir)
	}
	want := []string{"."}
	content, err := os.ReadFile("/sys/kernel/cgroup/delegate")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range parseDelegate(string(content)) {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			want = append(want, name)
		}
	}
	got := owned(t, dir)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("given away were %q, want %q", got, want)
	}

	r, err = Delegate(verified(t, p), owner, Options{Leaf: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.Leaf != dir+"/"+leafName || len(r.Controllers) == 0 {
		t.Fatalf("no leaf: %s", r)
	}
	if answer := p.try(t, "groups"); !strings.Contains(answer, "0::/"+leafName+" ") {
		t.Errorf("init is in %q", answer)
	}
	// The very thing that the leaf is for: a limit in a group beside init.
	if answer := p.try(t, "mkdir %s/inner", mountpoint); answer != "<nil>" {
		t.Errorf("inner group: %s", answer)
	}
	if content, err := os.ReadFile(dir + "/inner/cgroup.controllers"); err != nil || strings.TrimSpace(string(content)) != strings.Join(r.Controllers, " ") {
		t.Errorf("controllers of an inner group: %q, %v; want %q", content, err, r.Controllers)
	}
	for _, name := range []string{"cgroup.freeze", "cgroup.max.depth", "cgroup.type", "cgroup.max.descendants", leafName + "/cgroup.freeze"} {
		if answer := p.try(t, "write %s/%s 1", mountpoint, name); !strings.Contains(answer, "permission denied") {
			t.Errorf("the container wrote %s: %s", name, answer)
		}
	}
	// The leaf and the inner group are two of three.
	for _, c := range []struct{ path, want string }{
		{"inner/deep", "<nil>"}, {"inner/deep/deeper", "resource temporarily unavailable"}, {"beside", "resource temporarily unavailable"},
	} {
		if answer := p.try(t, "mkdir %s/%s", mountpoint, c.path); !strings.HasSuffix(answer, c.want) {
			t.Errorf("group %s: %s, want %s", c.path, answer, c.want)
		}
	}
	if answer := p.try(t, "rmdir %s/inner/deep", mountpoint); answer != "<nil>" {
		t.Errorf("inner group: %s", answer)
	}
	// Again: init is in the leaf now, which is not the root of what it sees.
	if r, err = Delegate(verified(t, p), owner, Options{Leaf: true}); err != nil || r.Leaf != "" {
		t.Errorf("repeated: %s, %v", r, err)
	}
	if answer := p.try(t, "rmdir %s/inner", mountpoint); answer != "<nil>" {
		t.Errorf("inner group: %s", answer)
	}
}

// TestDelegateShared: groups that are not the container's alone stay.
func TestDelegateShared(t *testing.T) {
	p, other := start(t), exec.CommandContext(t.Context(), "sleep", "60")
	dirs := enter(t, p, func(m *mountinfo.Info) bool { return v1(m) || v2(m) })
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		other.Process.Kill() //nolint:errcheck // it may have ended
		other.Wait()         //nolint:errcheck // it was killed
	})
	unchanged := func(what, reason string) {
		t.Helper()
		r, err := Delegate(verified(t, p), owner, Options{Leaf: true})
		if err != nil {
			t.Error(err)
		}
		if len(r.Delegated) != 0 || !strings.Contains(r.String(), reason) {
			t.Errorf("%s: %s; want %q", what, r, reason)
		}
		for _, dir := range dirs {
			if got := owned(t, dir); len(got) != 0 {
				t.Errorf("%s: given away were %q", what, got)
			}
		}
	}
	move := func(pid int) {
		for _, dir := range dirs {
			if err := os.WriteFile(dir+"/cgroup.procs", fmt.Append(nil, pid), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	move(other.Process.Pid)
	unchanged("a foreign process", "a process of another user namespace is in the same group")
	other.Process.Kill() //nolint:errcheck // checked by what follows
	other.Wait()         //nolint:errcheck // it was killed

	for _, dir := range dirs {
		if err := os.Mkdir(dir+"/foreign", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	unchanged("a foreign child", "belongs to another user")
	for _, dir := range dirs {
		if err := errors.Join(os.Remove(dir+"/foreign"), os.Chown(dir, 4711, -1)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Delegate(verified(t, p), owner, Options{})
	if err != nil || len(r.Delegated) != 0 {
		t.Errorf("a foreign directory: %s, %v", r, err)
	}
}

// A container that the runtime made with other ids than planned gets nothing.
func TestDelegateUnconfined(t *testing.T) {
	p := start(t)
	dirs := enter(t, p, func(m *mountinfo.Info) bool { return v1(m) || v2(m) })
	// A child of this process, in the container's group.
	init, err := member.Verify(p.Process.Pid, member.Container{Mapping: idmap.Contiguous(owner.UID, 7), Cgroups: dirs})
	if err != nil {
		t.Fatal(err)
	}
	defer init.Close()
	if r, err := Delegate(init, owner, Options{}); !errors.Is(err, member.ErrUnconfined) || len(r.Delegated) != 0 {
		t.Errorf("%s, %v", r, err)
	}
}
