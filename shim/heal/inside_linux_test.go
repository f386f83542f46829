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
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/member"
)

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
	_, mounted, err := observe(p)
	if err != nil {
		t.Fatal(err)
	}
	return len(mounted)
}

// serve mounts a file system.
func serve(t *testing.T, fsType string) (*fusetest.Server, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := fusetest.Mount("/dev/fuse", dir, fsType)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // a second time, unless the test has failed
	return s, dir
}

// plainRoot is the root of a container, on the file system of tests.
func plainRoot(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/proc", 0o755), os.WriteFile(dir+"/proc/meminfo", nil, 0o600), os.Chmod(dir, 0o755)); err != nil { //nolint:gosec // as in a container
		t.Fatal(err)
	}
	// Test directories are closed to the containers' ids.
	for above := filepath.Dir(dir); above != os.TempDir() && above != "/"; above = filepath.Dir(above) {
		if err := os.Chmod(above, 0o755); err != nil { //nolint:gosec // as above
			t.Fatal(err)
		}
	}
	return dir
}

// left waits for the child that a container holds up.
func left(t *testing.T, c *watched) {
	t.Helper()
	if c.delay.child == nil {
		t.Fatal("no child was left behind")
	}
	select {
	case <-c.delay.child.Ended():
	case <-time.After(20 * time.Second):
		t.Fatal("the child outlives the server that it waited for")
	}
}

// TestHungServerOfOneContainer: a container can have files of a server of its own that
// calls itself lxcfs and never answers. That costs one process, and no other container
// its files.
func TestHungServerOfOneContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for mounts")
	}
	server, files := serve(t, "fuse.lxcfs")
	hung, hungFiles := serve(t, "fuse.lxcfs")
	liar, healthy := containerIn(t, plainRoot(t), hungFiles+"/proc/meminfo"), containerIn(t, plainRoot(t), files+"/proc/meminfo")
	hung.Hang.Store(true)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		newPass(&hang{}).reconcile(t.Context(), []*watched{liar, healthy})
		if shown(t, liar.Init) != 1 || shown(t, healthy.Init) != 0 {
			t.Errorf("round %d: %d files of the hung server, want 1; %d of the dead one, want 0", round, shown(t, liar.Init), shown(t, healthy.Init))
		}
		if !liar.unsure || liar.delay.over() || liar.delay.late() || healthy.unsure {
			t.Errorf("round %d: unsure %v, %v, delay %+v", round, liar.unsure, healthy.unsure, liar.delay)
		}
		if lxcfs.Waiting("") {
			t.Errorf("round %d: no container would get files any more", round)
		}
	}
	if err := hung.Close(); err != nil {
		t.Fatal(err)
	}
	left(t, liar)
	if newPass(&hang{}).reconcile(t.Context(), []*watched{liar}); shown(t, liar.Init) != 0 || liar.unsure {
		t.Error("the files of the server are left although it is dead now")
	}
}

// TestEndedServerHeld: a server has ended, and somebody else holds its connection. Its
// files are taken away nevertheless, and who waits for it keeps nobody from working in the
// containers.
func TestEndedServerHeld(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for mounts")
	}
	server, files := serve(t, "fuse.lxcfs")
	all := []*watched{containerIn(t, plainRoot(t), files+"/proc/meminfo"), containerIn(t, plainRoot(t), files+"/proc/meminfo")}
	for _, c := range all {
		_, mounted, err := observe(c.Init)
		if err != nil || len(mounted) != 1 {
			t.Fatal(mounted, err)
		}
		c.ended = mounted[0].Device
	}
	server.Hang.Store(true)
	w := &watch{mountinfo: -1}
	w.reconcile(t.Context(), all)
	for n, c := range all {
		if shown(t, c.Init) != 0 || c.unsure || !c.delay.over() {
			t.Errorf("container %d has %d files, unsure %v, delay %+v", n, shown(t, c.Init), c.unsure, c.delay)
		}
	}
}

// TestSilentSource: the lxcfs that has files for a container does not answer. It is
// watched until it does, and does not stand in the way of another one.
func TestSilentSource(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for mounts")
	}
	server, dir := serve(t, "fuse.lxcfs")
	server.Hang.Store(true)
	m, err := newWatched(Container{ID: "c", Init: container(t), LXCFS: config.LXCFS{TimeoutMS: 500, Path: dir}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.close)
	all := []*watched{m}
	w := &watch{mountinfo: -1}
	defer w.forget()
	if w.reconcile(t.Context(), all); !lxcfs.Waiting(dir) {
		t.Error("nobody waits for it")
	}
	if !w.search(t.Context(), all) || !w.hang.hangs || !w.looks(all) {
		t.Error("nobody would notice that it answers again")
	}
	_, other := serve(t, "fuse.lxcfs")
	if lxcfs.Waiting(other) {
		t.Error("another one counts as waited for")
	}
}

// TestAttachDeleted: the kernel attaches no file of a server that has died, once it knows
// that. The container is owed it still.
func TestAttachDeleted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for mounts")
	}
	c, err := newWatched(Container{ID: "c", Init: container(t), LXCFS: config.LXCFS{TimeoutMS: 500}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	in := inside{container: c, process: c.Init.ID(), places: newPlaces(true)}
	dir := t.TempDir()
	for _, step := range []struct {
		file    string
		deleted bool
	}{{"dead", true}, {"living", false}} {
		path := filepath.Join(dir, step.file)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		m, err := mount.CloneTree(fd, "", mount.CloneOptions{Propagation: unix.MS_PRIVATE})
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if step.deleted {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		n, err := in.attach(t.Context(), []lxcfs.File{{Name: "proc/meminfo", Mount: m}})
		if deleted := errors.Is(err, errGone); deleted != step.deleted || !deleted && err != nil || (n == 0) != deleted || in.places.owed["proc/meminfo"] != deleted {
			t.Errorf("%s: %d attached, %v, places %v", step.file, n, err, in.places)
		}
	}
}

// TestContainerOnHungFileSystem: a container whose root never answers holds up no
// other one for long, and is left alone until it answers.
func TestContainerOnHungFileSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for mounts")
	}
	server, files := serve(t, "fuse.lxcfs")
	root, hungDir := serve(t, "fuse")
	plain := plainRoot(t) // makes the other directories accessible, too
	hung, healthy := containerIn(t, hungDir, files+"/proc/meminfo"), containerIn(t, plain, files+"/proc/meminfo")
	if n := shown(t, hung.Init) + shown(t, healthy.Init); n != 2 {
		t.Fatalf("%d files of lxcfs before it died, want 2", n)
	}
	root.Hang.Store(true)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		began := time.Now()
		r := newPass(&hang{})
		r.reconcile(t.Context(), []*watched{hung, healthy})
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("round %d took %v", round, took)
		}
		if want := 1 - round; r.detached != want || shown(t, healthy.Init) != 0 || shown(t, hung.Init) != 1 {
			t.Errorf("round %d: %d files detached, want %d; the hung container has %d", round, r.detached, want, shown(t, hung.Init))
		}
		if !hung.lacking() {
			t.Errorf("round %d: a file that may be gone would not come back", round)
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
	root.Hang.Store(false)
	if err := root.Close(); err != nil {
		t.Fatal(err)
	}
	left(t, hung)
	if !hung.delay.over() {
		t.Error("the container is left alone for good")
	}
	if newPass(&hang{}).reconcile(t.Context(), []*watched{hung}); hung.delay.late() {
		t.Error("the container is held for hung although its root answers")
	}
}
