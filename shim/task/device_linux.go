// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/shim/stage"
	"github.com/isolate-shim/isolate/spec"
)

// devDir is where the host has its devices, on a devtmpfs, on which nothing blocks.
const devDir = "/dev"

// findNodes lists the devices that the caller gives the container.
func (c *creation) findNodes(ctx context.Context) error {
	c.plan.Nodes = spec.Nodes(c.doc.Spec)
	sources := &stage.Sources{}
	for _, source := range spec.DeviceSources(c.doc.Spec) {
		more, err := boundNodes(ctx, sources, source, devDir)
		if err != nil {
			return fmt.Errorf("devices in volume %s: %w", source, err)
		}
		c.plan.Nodes = append(c.plan.Nodes, more...)
	}
	return nil
}

// boundNodes lists the devices that a bind mount of source gives: source itself, or
// the major numbers of those in it, if it is dev or a directory in it.
//
// Other directories are not searched: they may be large, or on a server that does
// not answer, and a device node there is nothing that the host has made.
func boundNodes(ctx context.Context, sources *stage.Sources, source, dev string) ([]spec.Node, error) {
	f, err := sources.Open(ctx, source)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return nil, os.NewSyscallError("statx "+source, err)
	}
	if n, ok := nodeOf(&st); ok {
		return []spec.Node{n}, nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || source != dev && !within(source, dev) {
		return nil, nil
	}
	on := [2]uint32{st.Dev_major, st.Dev_minor}
	found := map[spec.Node]bool{}
	err = filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // gone meanwhile
		case err != nil:
			return err
		case entry.Type()&fs.ModeDevice == 0 && !entry.IsDir():
			return nil
		}
		err = unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
		switch {
		case errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return os.NewSyscallError("statx "+path, err)
		case entry.IsDir() && on != [2]uint32{st.Dev_major, st.Dev_minor}:
			return filepath.SkipDir // something else is mounted there
		}
		if n, ok := nodeOf(&st); ok {
			n.Minor = -1
			found[n] = true
		}
		return nil
	})
	var out []spec.Node
	for n := range found {
		out = append(out, n)
	}
	return out, err
}

func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

func nodeOf(st *unix.Statx_t) (spec.Node, bool) {
	kind := map[uint16]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[st.Mode&unix.S_IFMT]
	return spec.Node{Type: kind, Major: int64(st.Rdev_major), Minor: int64(st.Rdev_minor)}, kind != ""
}
