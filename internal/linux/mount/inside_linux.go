// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/eintr"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/openat"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/internal/linux/thread"
)

// maxStacked bounds how many mounts Detach takes off one path: a container can
// stack more of them while we work.
const maxStacked = 64

// Inside is the mount namespace and root directory of a container, valid while
// the function given to [InNamespace] runs and on its thread only.
//
// Paths are the container's, so they are resolved without following any
// symbolic or magic link and never above its root. A file system that the container
// mounted can hold up the look-up for ever: plain FUSE of a user namespace does not
// serve processes outside of it, but an overlay over it asks with the credentials of
// whoever mounted that. So once a program of the container runs, this is for
// disposable processes only.
type Inside struct {
	root *os.File
}

// InNamespace runs fn in the mount namespace of a process, with that
// process's root as "/". fn runs on a thread of its own that is thrown away; a
// panic in it becomes an error. It must not start goroutines that expect to be
// in there.
//
// It is the process's network namespace as well: below /proc/sys/net everybody
// sees the files of the own one, and a mount on one of them is seen there alone.
//
// A process in the caller's own mount namespace is refused: what shall be attached
// in a container must not hit the host. Whose the process is, the caller has to
// have proved (package member).
func InNamespace(p *proc.Process, fn func(*Inside) error) error {
	err := thread.Run(func() error {
		in, err := enter(p)
		if err != nil {
			return err
		}
		defer in.root.Close()
		return fn(in)
	})
	if err != nil {
		return fmt.Errorf("in mount namespace of process %d: %w", p.PID(), err)
	}
	return nil
}

// InMounts is [InNamespace] for a mount namespace that is not the host's, with a root
// directory in it (O_PATH), as far as mounts go.
func InMounts(mounts, root *os.File, fn func(*Inside) error) error {
	err := thread.Run(func() error {
		if err := enterRoot(int(mounts.Fd()), unix.CLONE_NEWNS, root); err != nil {
			return err
		}
		return fn(&Inside{root: root})
	})
	if err != nil {
		return fmt.Errorf("in mount namespace of %q: %w", root.Name(), err)
	}
	return nil
}

func enter(p *proc.Process) (*Inside, error) {
	if err := foreignMounts(p); err != nil {
		return nil, err
	}
	// Not always the root of its mount namespace: runc --no-pivot, chroot. Without
	// an fstat, which os.OpenFile does and a file system of the container may answer.
	fd, err := eintr.Get(func() (int, error) {
		return unix.Open(p.Path("root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: p.Path("root"), Err: err}
	}
	root := os.NewFile(uintptr(fd), p.Path("root"))
	// By pidfd since Linux 5.8. ESRCH if the process has ended.
	err = enterRoot(p.FD(), unix.CLONE_NEWNS|unix.CLONE_NEWNET, root)
	if err == nil {
		// What was opened by number belongs to it only if it lived until now.
		err = p.Signal(0)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &Inside{root: root}, nil
}

// enterRoot enters namespaces, by a descriptor and flags of setns(2).
func enterRoot(fd, flags int, root *os.File) error {
	// setns(CLONE_NEWNS) needs a root and working directory of the thread's own.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(fd, flags); err != nil {
		return os.NewSyscallError("setns", err)
	}
	if err := unix.Fchdir(int(root.Fd())); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	return os.NewSyscallError("chroot", unix.Chroot("."))
}

func foreignMounts(p *proc.Process) error {
	theirs, err := p.Namespace("mnt")
	if err != nil {
		return err
	}
	defer theirs.Close()
	its, err := ns.Of(theirs)
	if err != nil {
		return err
	}
	ours, err := ns.Own("mnt")
	if err == nil && its == ours {
		return errors.New("it has no mount namespace of its own")
	}
	return err
}

// Target says what the place of a mount inside a container must look like.
type Target struct {
	// Magic lists the file systems the target may be on (f_type of statfs(2)),
	// after Replace was done; empty for any.
	Magic []int64
	// Replace detaches what is mounted at the very target first. Without it a
	// target that is a mount point is refused with ErrMounted.
	Replace bool
}

// Open opens a path in the container: an absolute one or one below its root,
// without following links. It takes the flags of open(2).
func (in *Inside) Open(unsafePath string, flags int) (*os.File, error) {
	return openat.Open(in.root, unsafePath, flags, openat.InRoot|openat.NoLinks)
}

// Attach attaches a detached mount over an existing path in the container, if
// that is what t expects. If there is no such path, the error matches ENOENT; if the mount
// is of a file that was deleted meanwhile, also [ErrDeleted].
func (in *Inside) Attach(m *os.File, unsafePath string, t Target) error {
	if t.Replace {
		if err := in.Detach(unsafePath); err != nil {
			return err
		}
	}
	target, err := in.Open(unsafePath, unix.O_PATH)
	if err != nil {
		return fmt.Errorf("attach %s: %w", m.Name(), err)
	}
	defer target.Close()
	// Asked before statfs, which a dead file system of the host answers late.
	mounted, err := isMountRoot(int(target.Fd()), "")
	if err != nil {
		return fmt.Errorf("attach %s at %q: %w", m.Name(), unsafePath, err)
	}
	if mounted {
		return fmt.Errorf("attach %s at %q: %w", m.Name(), unsafePath, ErrMounted)
	}
	if err := checkMagic(target, t.Magic); err != nil {
		return fmt.Errorf("attach %s at %q: %w", m.Name(), unsafePath, err)
	}
	err = moveMount(m, int(target.Fd()), "", 0)
	if errors.Is(err, unix.ENOENT) { // the target was opened
		return fmt.Errorf("%w: %w", ErrDeleted, err)
	}
	return err
}

// AttachToRoot attaches a detached mount over an existing directory in the root file system
// of a container, in which programs run already: it passes, and asks, nothing that they
// have mounted. root is what the container's root directory has to be, by whatever mount.
//
// If something is mounted at the path, or above it, the error matches [ErrMounted].
func (in *Inside) AttachToRoot(m, root *os.File, unsafePath string) error {
	if same, err := SameFile(in.root, root); err != nil || !same {
		return fmt.Errorf("attach %s at %q: the process has another root directory than its container: %w", m.Name(), unsafePath, cmp.Or(err, ErrNotThere))
	}
	target, err := openat.Open(in.root, unsafePath, unix.O_PATH|unix.O_DIRECTORY, openat.InRoot|openat.NoLinks|openat.SameMount)
	if errors.Is(err, unix.EXDEV) {
		err = ErrMounted
	}
	if err != nil {
		return fmt.Errorf("attach %s at %q: %w", m.Name(), unsafePath, err)
	}
	defer target.Close()
	return moveMount(m, int(target.Fd()), "", 0)
}

// SameFile tells whether two descriptors are of one file, without asking a server.
func SameFile(a, b *os.File) (bool, error) {
	var st [2]unix.Statx_t
	for i, f := range []*os.File{a, b} {
		err := eintr.Do(func() error {
			return unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st[i])
		})
		if err != nil {
			return false, &os.PathError{Op: "statx", Path: f.Name(), Err: err}
		}
	}
	return st[0].Ino == st[1].Ino && st[0].Dev_major == st[1].Dev_major && st[0].Dev_minor == st[1].Dev_minor, nil
}

// Detach detaches everything that is mounted at the very path (umount2(2) with
// MNT_DETACH), so that what is below shows, also if its server is dead. It is no
// error if nothing is mounted there.
func (in *Inside) Detach(unsafePath string) error {
	dir, name := path.Split(path.Clean("/" + unsafePath))
	if name == "" {
		return fmt.Errorf("detach %q: not the root of a container", unsafePath)
	}
	parent, err := in.Open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("detach %q: %w", unsafePath, err)
	}
	defer parent.Close()
	// umount2 takes no directory descriptor. The working directory is this
	// thread's own, and the single component left is not followed.
	if err := unix.Fchdir(int(parent.Fd())); err != nil {
		return fmt.Errorf("detach %q: %w", unsafePath, os.NewSyscallError("fchdir", err))
	}
	for range maxStacked {
		mounted, err := isMountRoot(int(parent.Fd()), name)
		if err != nil {
			return fmt.Errorf("detach %q: %w", unsafePath, err)
		}
		if !mounted {
			return nil
		}
		if err := unix.Unmount(name, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("detach %q: %w", unsafePath, os.NewSyscallError("umount2", err))
		}
	}
	return fmt.Errorf("detach %q: more than %d mounts on top of each other", unsafePath, maxStacked)
}

// OpenMount opens what is mounted at the very path, without asking its server, if
// it is the mount with that id (of mountinfo). Otherwise the error is
// [ErrNotThere].
func (in *Inside) OpenMount(unsafePath string, id int) (*os.File, error) {
	f, err := in.Open(unsafePath, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	if err := isMount(int(f.Fd()), "", id); err != nil {
		return nil, errors.Join(fmt.Errorf("open mount at %q: %w", unsafePath, err), f.Close())
	}
	return f, nil
}

// DetachMount detaches what is mounted at the very path if it is the mount with
// that id (of mountinfo), also if its server is dead, and nothing of what else
// may be there: then the error is [ErrNotThere].
func (in *Inside) DetachMount(unsafePath string, id int) error {
	dir, name := path.Split(path.Clean("/" + unsafePath))
	parent, err := in.Open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("detach %q: %w", unsafePath, err)
	}
	defer parent.Close()
	if err := unix.Fchdir(int(parent.Fd())); err != nil { // as in Detach
		return fmt.Errorf("detach %q: %w", unsafePath, os.NewSyscallError("fchdir", err))
	}
	if err := isMount(int(parent.Fd()), name, id); err != nil {
		return fmt.Errorf("detach %q: %w", unsafePath, err)
	}
	if err := unix.Unmount(name, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("detach %q: %w", unsafePath, os.NewSyscallError("umount2", err))
	}
	return nil
}

// isMount tells whether the topmost mount at the path is the one with that id
// (statx(2), STATX_MNT_ID, Linux 5.8).
func isMount(dirfd int, name string, id int) error {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	if err := eintr.Do(func() error { return unix.Statx(dirfd, name, flags, unix.STATX_MNT_ID, &st) }); err != nil {
		return os.NewSyscallError("statx", err)
	}
	if st.Mask&unix.STATX_MNT_ID == 0 || st.Mnt_id != uint64(id) || st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 { //nolint:gosec // not negative
		return ErrNotThere
	}
	return nil
}

// isMountRoot tells whether something is mounted at the path (statx(2),
// STATX_ATTR_MOUNT_ROOT, Linux 5.8). It takes cached attributes, so that no
// server is asked.
func isMountRoot(dirfd int, name string) (bool, error) {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	if err := eintr.Do(func() error { return unix.Statx(dirfd, name, flags, 0, &st) }); err != nil {
		return false, os.NewSyscallError("statx", err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

func checkMagic(target *os.File, magic []int64) error {
	if len(magic) == 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := eintr.Do(func() error { return unix.Fstatfs(int(target.Fd()), &st) }); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if !slices.Contains(magic, int64(st.Type)) { //nolint:unconvert // narrower on some platforms
		return fmt.Errorf("%w with magic %#x", ErrWrongFileSystem, st.Type)
	}
	return nil
}
