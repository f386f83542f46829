// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/log"

	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/member"
)

// namespace is a mount namespace of a container, by one of its processes.
type namespace struct {
	process *member.Process
	id      ns.ID
	bound   []lxcfs.MountedFile
}

// openNamespace looks at the mounts of a process, which is the caller's to close.
func openNamespace(p *member.Process) (n namespace, err error) {
	n.process = p
	if n.id, err = ns.At(p.Path("ns/mnt")); err != nil {
		return n, err
	}
	table, err := os.Open(p.Path("mountinfo"))
	if err != nil {
		return n, err
	}
	defer table.Close()
	if n.bound, err = lxcfs.MountedFiles(table); err != nil {
		return n, err
	}
	return n, p.Signal(0) // still the one that was looked at
}

// open opens one file of each server, for it to be asked; the caller closes them.
// What is covered cannot be opened.
func (m *watched) open(ctx context.Context, ns namespace, files []lxcfs.MountedFile) (map[lxcfs.Device]*os.File, error) {
	opened := map[lxcfs.Device]*os.File{}
	err := m.inside(ctx, request{Process: ns.process.ID(), Open: files}, nil, func(a answer, f *os.File) {
		if f != nil {
			opened[files[a.Entry].Device] = f
		}
	})
	return opened, err
}

// detach detaches mounts whose server is dead. What the container changed
// meanwhile is left alone.
func (m *watched) detach(ctx context.Context, ns namespace, mounts []lxcfs.MountedFile, s *state) error {
	if len(mounts) == 0 {
		return nil
	}
	var errs []error
	err := m.inside(ctx, request{Process: ns.process.ID(), Detach: mounts}, nil, func(a answer, _ *os.File) {
		switch {
		case a.Failed != "":
			errs = append(errs, errors.New(a.Failed))
		case a.Left:
			log.G(ctx).WithField("file", mounts[a.Entry].Name).Debug("isolate: a dead file of lxcfs is not on top")
		default:
			s.detached(mounts[a.Entry].Name)
		}
	})
	return errors.Join(append(errs, err)...)
}

// attach puts files in the places that are to get them, and returns how many.
func (m *watched) attach(ctx context.Context, ns namespace, files []lxcfs.File, s *state) (attached int, _ error) {
	q, mounts := request{Process: ns.process.ID()}, []*os.File(nil)
	for _, f := range files {
		if s.wants(f.Name) {
			q.Attach, mounts = append(q.Attach, f.Name), append(mounts, f.Mount)
		}
	}
	if len(mounts) == 0 {
		return 0, nil
	}
	var errs []error
	err := m.inside(ctx, q, mounts, func(a answer, _ *os.File) {
		name := q.Attach[a.Entry]
		switch {
		case a.Failed != "":
			errs = append(errs, fmt.Errorf("graft %s: %s", name, a.Failed))
			return
		case !a.Left:
			attached++
		}
		s.settle(name)
	})
	return attached, errors.Join(append(errs, err)...)
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
