// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/member"
)

// namespace is a mount namespace of a container, by one of its processes.
type namespace struct {
	process *member.Process
	ino     uint64
	bound   []lxcfs.Bound
}

// openNamespace looks at the mounts of a process, which is the caller's to close.
func openNamespace(p *member.Process) (namespace, error) {
	ns := namespace{process: p}
	var st unix.Stat_t
	if err := unix.Stat(p.Path("ns/mnt"), &st); err != nil {
		return ns, &os.PathError{Op: "stat", Path: p.Path("ns/mnt"), Err: err}
	}
	ns.ino = st.Ino
	table, err := os.Open(p.Path("mountinfo"))
	if err != nil {
		return ns, err
	}
	defer table.Close() //nolint:errcheck // read-only
	if ns.bound, err = lxcfs.BoundIn(table); err != nil {
		return ns, err
	}
	return ns, p.Signal(0) // still the one that was looked at
}

// inside runs fn in the namespace, with the process's root.
func (ns namespace) inside(fn func(*idmap.Inside) error) error { return ns.process.Inside(fn) }

// open opens one of the files, for its server to be asked.
func (ns namespace) open(b lxcfs.Bound) (f *os.File, err error) {
	err = ns.inside(func(in *idmap.Inside) error {
		f, err = in.OpenMount(b.Name, b.ID)
		return err
	})
	return f, err
}

// detach detaches mounts whose server is dead. What the container changed
// meanwhile is left alone.
func (ns namespace) detach(ctx context.Context, mounts []lxcfs.Bound, s *state) error {
	if len(mounts) == 0 {
		return nil
	}
	return ns.inside(func(in *idmap.Inside) error {
		var errs []error
		for _, b := range mounts {
			switch err := in.DetachMount(b.Name, b.ID); {
			case err == nil:
				s.detached(b.Name)
			case errors.Is(err, idmap.ErrNotThere), errors.Is(err, fs.ErrNotExist):
				log.G(ctx).WithError(err).Debug("isolate: a dead file of lxcfs is not on top")
			default:
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	})
}

// attach puts files in the places that are to get them, and returns how many.
func (ns namespace) attach(files []lxcfs.File, s *state) (attached int, _ error) {
	err := ns.inside(func(in *idmap.Inside) error {
		var errs []error
		for _, f := range files {
			if !s.wants(f.Name) {
				continue
			}
			err := in.Attach(f.Mount, f.Name, idmap.Target{Magic: []int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC}})
			switch {
			case err == nil:
				attached++
			case errors.Is(err, idmap.ErrMounted), errors.Is(err, idmap.ErrWrongFileSystem), errors.Is(err, fs.ErrNotExist):
				// The container's doing, or the kernel has no such file.
			default:
				errs = append(errs, fmt.Errorf("graft %s: %w", f.Name, err))
				continue
			}
			s.settle(f.Name)
		}
		return errors.Join(errs...)
	})
	return attached, err
}

// processesIn lists the processes of a container. All are below its own group in each
// hierarchy, so that one hierarchy tells them all.
func processesIn(ctx context.Context, cgroups []string) []int {
	for _, top := range cgroups {
		if pids, err := cgroupfs.Processes(ctx, top); err == nil {
			return slices.DeleteFunc(pids, func(pid int) bool { return pid == 0 })
		}
	}
	return nil
}
