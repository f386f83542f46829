// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/fusetest"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/member"
)

// ownMounts is set in the process that has a mount namespace of its own, so that
// nothing is left of what tests mount.
const ownMounts = "ISOLATE_TEST_HEAL"

func withOwnMounts() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), ownMounts+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, "start tests in a mount namespace:", err)
		return 1
	}
	return 0
}

// rootedName is argv[0] of a container's first process whose root is a directory.
const rootedName = "rooted"

func rooted(root string) int {
	if err := errors.Join(unix.Chroot(root), os.Chdir("/")); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	time.Sleep(time.Minute)
	return 0
}

// containerIn starts a container with that root, and a file on its proc/meminfo.
func containerIn(t *testing.T, root, meminfo string) *watched {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{rootedName, root}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{}} // its own root
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := verified(t, cmd)
	var line string
	if _, err := fmt.Fscanln(out, &line); err != nil || line != "ready" {
		t.Fatalf("container: %q, %v", line, err)
	}
	file, err := os.OpenFile(meminfo, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	clone, err := mount.CloneTree(int(file.Fd()), "", mount.CloneOptions{Propagation: unix.MS_PRIVATE})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Inside(func(in *mount.Inside) error { return in.Attach(clone, "proc/meminfo", mount.Target{}) })
	if err := errors.Join(err, clone.Close()); err != nil {
		t.Fatal(err)
	}
	m, err := newWatched(Container{ID: filepath.Base(root), Init: p, LXCFS: config.LXCFS{TimeoutMS: 500, Path: "/nowhere"}, Files: []string{"proc/meminfo"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.close)
	return m
}

// shown counts the files of lxcfs in a container.
func shown(t *testing.T, p *member.Process) int {
	t.Helper()
	ns, err := openNamespace(p)
	if err != nil {
		t.Fatal(err)
	}
	return len(ns.bound)
}

// TestContainerOnHungFileSystem: a container whose root never answers holds up no
// other one for long, and is left alone until it answers.
func TestContainerOnHungFileSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for mounts")
	}
	serve := func(fsType string) (*fusetest.Server, string) {
		dir := t.TempDir()
		s, err := fusetest.Mount("/dev/fuse", dir, fsType)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() }) // a second time, unless the test has failed
		return s, dir
	}
	lxcfs, files := serve("fuse.lxcfs")
	root, hungDir := serve("fuse")
	plain := t.TempDir()
	if err := errors.Join(os.Mkdir(plain+"/proc", 0o755), os.WriteFile(plain+"/proc/meminfo", nil, 0o600), os.Chmod(plain, 0o755)); err != nil { //nolint:gosec // as in a container
		t.Fatal(err)
	}
	// Test directories are closed to the containers' ids.
	for dir := filepath.Dir(plain); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // as above
			t.Fatal(err)
		}
	}
	hung, healthy := containerIn(t, hungDir, files+"/proc/meminfo"), containerIn(t, plain, files+"/proc/meminfo")
	if n := shown(t, hung.Init) + shown(t, healthy.Init); n != 2 {
		t.Fatalf("%d files of lxcfs before it died, want 2", n)
	}
	root.Hang.Store(true)
	if err := lxcfs.Close(); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		began := time.Now()
		r := healAll(t.Context(), []*watched{hung, healthy})
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("round %d took %v", round, took)
		}
		if want := 1 - round; r.detached != want || shown(t, healthy.Init) != 0 || shown(t, hung.Init) != 1 {
			t.Errorf("round %d: %d files detached, want %d; the hung container has %d", round, r.detached, want, shown(t, hung.Init))
		}
		if hung.delay.failures != 1 || hung.delay.over() || healthy.delay.late() {
			t.Errorf("round %d: delays %+v, %+v", round, hung.delay, healthy.delay)
		}
	}
	// However much time has passed, there is one child at a time.
	hung.delay.until = time.Time{}
	if hung.delay.over() {
		t.Error("a second child would be started beside the one that waits")
	}
	child := hung.delay.child
	root.Hang.Store(false)
	if err := root.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-child.Ended():
	case <-time.After(20 * time.Second):
		t.Fatal("the child outlives the server that it waited for")
	}
	if !hung.delay.over() {
		t.Error("the container is left alone for good")
	}
	if healAll(t.Context(), []*watched{hung}); hung.delay.late() {
		t.Error("the container is held for hung although its root answers")
	}
}
