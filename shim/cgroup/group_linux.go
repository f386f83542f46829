// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/openat"
)

// group is an open cgroup directory.
type group struct {
	*os.File
	unified bool
}

// open opens the directory of a group. It follows no link and crosses no mount, so the
// directory is in the hierarchy in which the group was found.
func open(where place, unified bool) (*group, error) {
	mount, err := os.OpenFile(where.mountpoint, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer mount.Close()
	g := &group{unified: unified}
	g.File, err = openBelow(mount, where.rel, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(g.Fd()), &st); err != nil {
		return nil, errors.Join(os.NewSyscallError("fstatfs", err), g.Close())
	}
	want := int64(unix.CGROUP_SUPER_MAGIC)
	if unified {
		want = unix.CGROUP2_SUPER_MAGIC
	}
	if int64(st.Type) != want { //nolint:unconvert // narrower on some platforms
		return nil, errors.Join(errors.New("the directory is not in a cgroup file system of this version"), g.Close())
	}
	return g, nil
}

// openBelow opens a file of a group or a group below. It follows no link and crosses no
// mount.
func openBelow(dir *os.File, rel string, flags int) (*os.File, error) {
	return openat.Open(dir, rel, flags|unix.O_NOFOLLOW, openat.Beneath|openat.NoLinks|openat.SameMount)
}

// exclusive returns the processes of the group, or why the group is not the container's
// alone. Runtimes do not move the process in hierarchies that they do not manage: there
// it stays in the group of the shim or of the whole system.
func (g *group) exclusive(pid int, users ns.ID, owner idmap.Owner) ([]int, string, error) {
	processes, err := g.processes()
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, "the group is threaded", nil
	}
	if err != nil {
		return nil, "", err
	}
	// This also proves that the directory is in the hierarchy of the path.
	if !slices.Contains(processes, pid) {
		return nil, "the process is not in the group that is found by its path", nil
	}
	for _, p := range processes {
		if p == 0 {
			return nil, "a process outside of this pid namespace is in the same group", nil
		}
		theirs, err := ns.At(fmt.Sprintf("/proc/%d/ns/user", p))
		switch {
		case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ESRCH): // ended
		case err != nil:
			return nil, "", err
		case theirs != users:
			return nil, "a process of another user namespace is in the same group", nil
		}
	}
	ours, err := g.owners(owner)
	if err != nil {
		return nil, "", err
	}
	if !ours {
		return nil, "the group or one below it belongs to another user", nil
	}
	return processes, "", nil
}

// owners tells whether the directory belongs to this process's user or to owner, and
// every directory in it to owner.
func (g *group) owners(owner idmap.Owner) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(g.Fd()), &st); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	if st.Uid != uint32(unix.Geteuid()) && st.Uid != uint32(owner.UID) { //nolint:gosec // ids are 32 bits
		return false, nil
	}
	entries, err := g.ReadDir(-1)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		err := unix.Fstatat(int(g.Fd()), e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Uid != uint32(owner.UID) {
			return false, nil
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return false, &os.PathError{Op: "fstatat", Path: e.Name(), Err: err}
		}
	}
	return true, nil
}

func (g *group) chown(owner idmap.Owner) error {
	names := filesV1
	if g.unified {
		content, err := os.ReadFile("/sys/kernel/cgroup/delegate")
		if names = parseDelegate(string(content)); err != nil {
			names = fallbackV2
		}
	}
	if err := unix.Fchown(int(g.Fd()), int(owner.UID), int(owner.GID)); err != nil {
		return os.NewSyscallError("fchown", err)
	}
	for _, name := range names {
		err := unix.Fchownat(int(g.Fd()), name, int(owner.UID), int(owner.GID), unix.AT_SYMLINK_NOFOLLOW)
		// A group has the files of its controllers only, and some v1
		// hierarchies have no tasks.
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return &os.PathError{Op: "fchownat", Path: name, Err: err}
		}
	}
	return nil
}

// bound bounds the groups below. Each costs memory and one of the machine's 65535 ids of
// memory groups (mm/memcontrol.c: MEM_CGROUP_ID_MAX). The files are not given away with
// the group (Documentation/admin-guide/cgroup-v2.rst, "Delegation"), so the container
// cannot raise the bounds. Bounds that are set already stay.
func (g *group) bound(descendants, depth uint32) error {
	for name, bound := range map[string]uint32{"cgroup.max.descendants": descendants, "cgroup.max.depth": depth} {
		now, err := g.read(name)
		if errors.Is(err, os.ErrNotExist) { // before Linux 4.14
			continue
		}
		if err == nil && now == "max" && bound > 0 {
			err = g.write(name, strconv.FormatUint(uint64(bound), 10))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *group) processes() ([]int, error) {
	content, err := g.read("cgroup.procs")
	if err != nil {
		return nil, err
	}
	return cgroupfs.ParseProcesses(content)
}

func (g *group) read(name string) (string, error) {
	f, err := openBelow(g.File, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	content, err := io.ReadAll(f)
	return string(bytes.TrimSpace(content)), errors.Join(err, f.Close())
}

// write writes text by one write(2): the kernel takes each write as one command.
func (g *group) write(name, text string) error {
	f, err := openBelow(g.File, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
