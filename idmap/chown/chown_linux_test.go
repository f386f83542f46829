// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newSandbox makes the tree on one of the kinds of snapshots.
func newSandbox(t *testing.T, kind int) (sandbox, map[string]string) {
	t.Helper()
	return sandboxIn(t, kind, workDir(t))
}

func sandboxIn(t *testing.T, kind int, work string) (sandbox, map[string]string) {
	t.Helper()
	must(t, os.Mkdir(work+"/files", 0o755))
	makeFiles(t, work+"/files")
	s := sandbox{store: NewStore(work + "/store")}
	s.dir, s.root = kinds[kind].mount(t, work+"/files", work)
	return s, describe(t, s.root, 0)
}

func (s sandbox) moveTo(t *testing.T, first uint32) Report {
	t.Helper()
	r, err := moveTo(t.Context(), s.store, s.dir, s.root, first)
	must(t, err)
	return r
}

// states lists the files of a store that are about snapshots which are shifted.
func (s sandbox) states(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.store.dir, "*"))
	must(t, err)
	var out []string
	for _, n := range names {
		if strings.HasSuffix(n, stateSuffix) || strings.HasSuffix(n, journalSuffix) {
			out = append(out, n)
		}
	}
	return out
}

// TestThereAndBack: whatever an inode has to do with ids is the same in every
// range, and as it was when all is moved back.
func TestThereAndBack(t *testing.T) {
	for i, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			s, want := newSandbox(t, i)
			for _, first := range []uint32{rangeA, rangeB, rangeA} {
				r := s.moveTo(t, first)
				compare(t, fmt.Sprintf("in the range from %d on", first), describe(t, s.root, first), want)
				if r.Inodes != len(want) || r.Moved < len(files) {
					t.Errorf("report is %+v, of %d names", r, len(want))
				}
				if w := r.Warnings(spanAt(first)); len(w) > 0 {
					t.Errorf("warnings %q", w)
				}
			}
			if r := s.moveTo(t, rangeA); r.Inodes != 0 {
				t.Errorf("another start with the same range looked at %d files", r.Inodes)
			}
			s.moveTo(t, 0)
			compare(t, "back", describe(t, s.root, 0), want)
			if states := s.states(t); len(states) > 0 {
				t.Errorf("left in the store: %q", states)
			}
		})
	}
}

// TestKilledAnywhere: a run that is killed between any two steps is finished by
// the next one, whether that has the same range, another one or none.
func TestKilledAnywhere(t *testing.T) {
	// From an image to A; to A, given up for the image; from B to A, given up for B.
	ends := []uint32{rangeA, 0, rangeB}
	for i, kind := range kinds[:2] {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			killed := true
			for at := 0; killed && !t.Failed(); at++ {
				// Anew, since nothing is copied up twice.
				s, want := sandboxIn(t, i, memoryDir(t))
				if at%3 == 2 {
					s.moveTo(t, rangeB)
				}
				killed = s.kill(t, rangeA, at)
				if killed && at%4 == 0 { // and once more
					s.kill(t, rangeB, at/2)
				}
				for _, end := range []uint32{ends[at%len(ends)], 0} {
					s.moveTo(t, end)
					compare(t, fmt.Sprintf("killed at step %d, then moved to %d", at, end), describe(t, s.root, end), want)
				}
				if !killed && at < len(files) {
					t.Errorf("only %d steps", at)
				}
			}
		})
	}
}

// kill runs a start that is killed at a checkpoint, and tells whether it came to
// that.
func (s sandbox) kill(t *testing.T, first uint32, at int) bool {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", s.dir, s.root, fmt.Sprint(first), fmt.Sprint(at), s.store.dir)
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	if err == nil {
		return false
	}
	if status, ok := cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }); ok && status.Signal() == unix.SIGKILL {
		return true
	}
	t.Fatalf("start that is killed at step %d: %v: %s", at, err, said.String())
	return false
}

// TestOverlayAfterUse: what a container has made in the upper layer of an overlay
// is moved with the rest, and a hard link it made stays one.
func TestOverlayAfterUse(t *testing.T) {
	s, _ := newSandbox(t, 1)
	s.moveTo(t, rangeA)
	must(t, os.Remove(s.root+"/plain")) // a whiteout
	must(t, os.WriteFile(s.root+"/new", nil, 0o600))
	must(t, os.Lchown(s.root+"/new", rangeA+5, rangeA+6))
	must(t, os.Link(s.root+"/new", s.root+"/dir/new2"))
	must(t, os.RemoveAll(s.root+"/dir/deep"))
	must(t, os.Mkdir(s.root+"/dir/deep", 0o755)) // opaque
	must(t, os.WriteFile(s.root+"/host", nil, 0o600))
	want := describe(t, s.root, rangeA)
	want["host"] = strings.ReplaceAll(want["host"], "host 0", "0") // moved in by the next run
	want["dir/deep"] = strings.ReplaceAll(want["dir/deep"], "host 0", "0")
	for _, first := range []uint32{rangeB, 0} {
		s.moveTo(t, first)
		compare(t, fmt.Sprintf("in the range from %d on", first), describe(t, s.root, first), want)
	}
}

// TestCommittedLayer: a snapshot that was made a layer while its ids were shifted
// is usable by a snapshot on top of it.
func TestCommittedLayer(t *testing.T) {
	s, want := newSandbox(t, 0)
	s.moveTo(t, rangeA)
	st, ok, err := s.store.Recorded(s.dir)
	if err != nil || !ok {
		t.Fatalf("no state: %v", err)
	}
	work := workDir(t)
	upper, root := overlay(t, s.root, work, "index=off")
	tree, err := os.Open(root)
	must(t, err)
	defer tree.Close()
	to := spanAt(rangeB)
	n, err := s.store.Acquire(t.Context(), upper, "default/b", to, nil)
	must(t, err)
	_, err = n.Shift(t.Context(), tree, to, Options{Also: st.Spans})
	must(t, errors.Join(err, n.Close()))
	compare(t, "on top", describe(t, root, rangeB), want)
	compare(t, "the layer itself", describe(t, s.root, rangeA), want)
}

// TestStays: what cannot be moved stays, is counted, and does not keep the rest
// from being moved.
func TestStays(t *testing.T) {
	for _, kind := range kinds[:2] {
		t.Run(kind.name, func(t *testing.T) {
			work := workDir(t)
			dir := work + "/files"
			must(t, os.Mkdir(dir, 0o755))
			for _, name := range []string{"a", "b", "outside", "hard", "fixed", "z"} {
				must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
			}
			must(t, os.Link(dir+"/hard", dir+"/hard2"))
			must(t, os.Lchown(dir+"/outside", 100000, 7))
			flag(t, dir+"/fixed", true)
			t.Cleanup(func() { flag(t, dir+"/fixed", false) })
			s := sandbox{store: NewStore(work + "/store")}
			s.dir, s.root = kind.mount(t, dir, work)
			r := s.moveTo(t, rangeA)
			if r.Left != (Count{1, "outside"}) || r.Immutable != (Count{1, "fixed"}) {
				t.Errorf("report %+v", r)
			}
			warnings := strings.Join(r.Warnings(spanAt(rangeA)), "\n")
			for _, part := range []string{`"outside"`, "raise ids.size", `"fixed"`, "immutable (chattr +i or +a)"} {
				if !strings.Contains(warnings, part) {
					t.Errorf("warnings do not say %s: %s", part, warnings)
				}
			}
			got := describe(t, s.root, rangeA)
			for path, owner := range map[string]string{"a": " 0:0 ", "z": " 0:0 ", "outside": " host 100000:7 ", "fixed": " host 0:host 0 "} {
				if !strings.Contains(got[path], owner) {
					t.Errorf("%s is %s, want%s", path, got[path], owner)
				}
			}
		})
	}
}

// flag sets or clears the immutable flag of a file (ioctl_iflags(2)).
func flag(t *testing.T, path string, on bool) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	must(t, err)
	flags &^= unix.STATX_ATTR_IMMUTABLE
	if on {
		flags |= unix.STATX_ATTR_IMMUTABLE
	}
	must(t, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags)))
}

// TestNeverOutside: no link leads out of the tree, and no mount below it is
// touched.
func TestNeverOutside(t *testing.T) {
	work := workDir(t)
	for _, dir := range []string{"files", "files/dir", "outside"} {
		must(t, os.Mkdir(filepath.Join(work, dir), 0o755))
	}
	must(t, os.WriteFile(work+"/outside/suid", nil, 0o644))
	must(t, os.Chmod(work+"/outside/suid", os.ModeSetuid|0o755))
	must(t, os.Symlink(work+"/outside", work+"/files/dir/to"))
	must(t, os.Symlink("../../outside/suid", work+"/files/dir/suid"))
	must(t, os.Symlink("..", work+"/files/dir/up"))
	want := describe(t, work+"/outside", 0)
	s := sandbox{dir: work + "/files", root: work + "/files", store: NewStore(work + "/store")}
	s.moveTo(t, rangeA)
	compare(t, "outside", describe(t, work+"/outside", 0), want)

	must(t, os.Mkdir(work+"/files/mounted", 0o755))
	mount(t, "tmpfs", work+"/files/mounted", "size=1m")
	if _, err := moveTo(t.Context(), s.store, s.dir, s.root, rangeB); !errors.Is(err, unix.EXDEV) {
		t.Errorf("with a mount below: %v", err)
	}
}

// TestDeepTree: a path may be longer than the kernel takes, and a tree deeper
// than a process may have files open.
func TestDeepTree(t *testing.T) {
	work := workDir(t)
	root := work + "/files"
	must(t, os.Mkdir(root, 0o755))
	const depth = 700
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	name := strings.Repeat("d", 100)
	for range depth {
		must(t, unix.Mkdirat(fd, name, 0o755))
		must(t, unix.Mkdirat(fd, "beside", 0o755))
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, errors.Join(err, unix.Close(fd)))
		fd = next
	}
	bottom, err := unix.Openat(fd, "su", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o755)
	must(t, err)
	must(t, errors.Join(unix.Fchmod(bottom, 0o4755), unix.Close(fd)))
	s := sandbox{dir: root, root: root, store: NewStore(work + "/store")}
	r := s.moveTo(t, rangeA)
	if want := 2*depth + 2; r.Inodes != want || r.Moved != want {
		t.Errorf("report %+v, want %d", r, want)
	}
	var st unix.Stat_t
	must(t, errors.Join(unix.Fstat(bottom, &st), unix.Close(bottom)))
	if st.Uid != rangeA || st.Mode&modePerm != 0o4755 {
		t.Errorf("file at the bottom has mode %o and owner %d", st.Mode, st.Uid)
	}
}

// TestNamesAreBounded: how much the shim has to remember of a tree is not the
// container's to say.
func TestNamesAreBounded(t *testing.T) {
	was := maxHeld
	defer func() { maxHeld = was }()
	for name, fill := range map[string]func(root string, i int) error{
		"directories": func(root string, i int) error { return os.Mkdir(fmt.Sprintf("%s/%d", root, i), 0o755) },
		"hard links":  func(root string, i int) error { return os.Link(root+"/file", fmt.Sprintf("%s/%d", root, i)) },
	} {
		work := workDir(t)
		s := sandbox{dir: work + "/files", root: work + "/files", store: NewStore(work + "/store")}
		must(t, os.Mkdir(s.dir, 0o755))
		must(t, os.WriteFile(s.dir+"/file", nil, 0o644))
		for i := range 100 {
			must(t, fill(s.dir, i))
		}
		maxHeld = 50 * perName
		if _, err := moveTo(t.Context(), s.store, s.dir, s.root, rangeA); !errors.Is(err, errTooMany) {
			t.Errorf("%s: %v", name, err)
		}
		maxHeld = was
		s.moveTo(t, rangeA)
	}
}

// TestGivenUp: a run ends with the request it is for, and another one goes on.
func TestGivenUp(t *testing.T) {
	s, want := newSandbox(t, 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the client has gone")
	steps := 0
	checkpoint = func() {
		if steps++; steps == 3 {
			cancel(cause)
		}
	}
	defer func() { checkpoint = func() {} }()
	_, err := moveTo(ctx, s.store, s.dir, s.root, rangeA)
	if !errors.Is(err, cause) {
		t.Fatalf("run was not given up: %v", err)
	}
	s.moveTo(t, rangeB)
	compare(t, "afterwards", describe(t, s.root, rangeB), want)
}

// TestWithoutAttributes: a file system that has none, such as ramfs, is no
// problem.
func TestWithoutAttributes(t *testing.T) {
	work := workDir(t)
	must(t, os.Mkdir(work+"/ram", 0o755))
	mount(t, "ramfs", work+"/ram", "")
	must(t, os.WriteFile(work+"/ram/su", nil, 0o644))
	must(t, os.Link(work+"/ram/su", work+"/ram/su2"))
	must(t, os.Chmod(work+"/ram/su", os.ModeSetuid|0o755))
	want := describe(t, work+"/ram", 0)
	s := sandbox{dir: work + "/ram", root: work + "/ram", store: NewStore(work + "/store")}
	s.moveTo(t, rangeA)
	compare(t, "ramfs", describe(t, s.root, rangeA), want)
}
