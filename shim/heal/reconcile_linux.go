// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/member"
)

// pass is one reconciliation of containers. Each server is asked once in it, and lxcfs
// is probed as rarely as can be.
type pass struct {
	verdicts map[lxcfs.Device]verdict
	sources  map[sourceKey]*source
	hang     *hang
	hung     []lxcfs.Device // known to hang: their files are taken away
	late     []lxcfs.Device // ended, and do not answer: likewise
	silent   bool           // an lxcfs did not answer that has files to give

	detached, attached int
}

func newPass(h *hang) *pass {
	return &pass{verdicts: map[lxcfs.Device]verdict{}, sources: map[sourceKey]*source{}, hang: h, hung: h.devices}
}

// reconcile brings containers to what they should show, and logs what became of it. It
// changes nothing where that is so already, and leaves those alone that hold up a child.
func (p *pass) reconcile(ctx context.Context, containers []*watched) {
	defer func() {
		for _, s := range p.sources {
			s.close()
		}
	}()
	for _, c := range containers {
		if !c.delay.over() {
			continue
		}
		c.stale = false
		known := c.delay.late()
		err := p.container(ctx, c)
		switch {
		case err == nil, ended(err):
		case known && leavesAlone(err):
			log.G(ctx).WithError(err).WithField("id", c.ID).Debug("isolate: files of lxcfs could not be kept in order")
		default:
			log.G(ctx).WithError(err).WithField("id", c.ID).Warn("isolate: files of lxcfs could not be kept in order")
		}
	}
	switch {
	case p.detached == 0:
	case !p.hang.hangs:
		log.G(ctx).WithField("files", p.detached).Warn("isolate: lxcfs has died: /proc and /sys show the host's resources until it is back")
	case !p.hang.told:
		p.hang.told = true
		log.G(ctx).WithField("files", p.detached).Warn("isolate: lxcfs does not answer: it is stopped or stuck, so /proc and /sys show the host's resources until it answers; restart it if it does not")
	}
	if p.attached > 0 {
		log.G(ctx).WithField("files", p.attached).Info("isolate: lxcfs is back: /proc and /sys show the containers' resources")
	}
}

// leavesAlone tells whether an error means that the container is left alone for a while.
func leavesAlone(err error) bool {
	return errors.Is(err, errHeldUp) || errors.Is(err, mount.ErrSlowTable)
}

// ended tells whether an error means that a process has ended.
func ended(err error) bool {
	return errors.Is(err, proc.ErrEnded) || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// container reconciles the mount namespaces of one container.
func (p *pass) container(ctx context.Context, c *watched) error {
	c.unsure = false
	seen := map[ns.ID]bool{}
	// What changes in the container's own namespace spreads to those of its services,
	// so it comes first.
	first := p.namespace(ctx, c, c.Init, seen)
	if leavesAlone(first) || len(seen) == 0 || c.delay.child != nil {
		return first
	}
	for _, pid := range processesIn(ctx, c.Cgroups) {
		id, err := ns.At(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err != nil || seen[id] {
			continue
		}
		seen[id] = true
		process, err := member.Verify(pid, c.Init.Container())
		if err != nil {
			continue // it has ended, or somebody else is in the cgroup
		}
		err = p.namespace(ctx, c, process, seen)
		process.Close()
		if leavesAlone(err) || c.delay.child != nil {
			return err
		}
		if err != nil && !ended(err) {
			// Some inner containers cannot be helped: their root may be closed to us, or
			// their mounts locked.
			log.G(ctx).WithError(err).WithField("id", c.ID).Debug("isolate: files of lxcfs in an inner mount namespace")
		}
	}
	maps.DeleteFunc(c.places, func(id ns.ID, _ places) bool { return !seen[id] })
	c.delay.reset()
	return first
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

// namespace reconciles the mount namespace of a process.
func (p *pass) namespace(ctx context.Context, c *watched, process *member.Process, seen map[ns.ID]bool) (result error) {
	id, mounted, err := observe(process)
	slow := errors.Is(err, mount.ErrSlowTable)
	if err != nil && !slow {
		return err
	}
	seen[id] = true
	if slow {
		tooLarge := fmt.Errorf("process %d: %w; the container is left alone for a while", process.ID().PID, err)
		defer func() {
			if !errors.Is(result, errHeldUp) {
				c.delay.add(c.delay.child)
			}
			result = errors.Join(tooLarge, result)
		}()
	}
	known, ok := c.places[id]
	if !ok {
		known = newPlaces(false)
		c.places[id] = known
	}
	in := inside{container: c, process: process.ID(), places: known}
	n, err := in.detach(ctx, slices.DeleteFunc(slices.Clone(mounted), p.lives), c.ended, slices.Concat(p.hung, p.late), p.verdicts)
	p.detached += n
	gone := n > 0
	for _, m := range mounted {
		if p.verdicts[m.Device] == hung && m.Device == c.ended {
			p.verdicts[m.Device], p.late = dead, append(p.late, m.Device)
		}
		c.unsure = c.unsure || p.verdicts[m.Device] == hung
		gone = gone || p.verdicts[m.Device] == dead
	}
	if gone {
		c.refresh()
	}
	if err == nil && !c.unsure {
		c.delay.child = nil // it waits for one that has ended, and that nobody asks again
	}
	if err != nil || !known.lacking() {
		return err
	}
	source := p.source(c.LXCFS)
	files, err := source.take(ctx)
	p.silent = p.silent || errors.Is(err, lxcfs.ErrHung)
	if err != nil {
		return nil // there is no lxcfs, which is not the container's fault
	}
	p.hung = nil // it answers
	defer lxcfs.CloseFiles(files)
	n, err = in.attach(ctx, known.diff(c.gets(files)))
	if p.attached += n; n > 0 {
		if c.Origin = source.result.Origin; c.Device == c.ended {
			c.ended = lxcfs.Device{} // the number is given out again
		}
		c.refresh()
	}
	if errors.Is(err, errGone) {
		return nil // it gets the files of the next one
	}
	if err == nil {
		known.served()
	}
	return err
}

// observe returns the mount namespace of a process and the files of lxcfs in there; with
// [mount.ErrSlowTable] the files that were found in time.
func observe(p *member.Process) (id ns.ID, mounted []lxcfs.MountedFile, err error) {
	if id, err = ns.At(p.Path("ns/mnt")); err != nil {
		return id, nil, err
	}
	table, err := os.Open(p.Path("mountinfo"))
	if err != nil {
		return id, nil, err
	}
	defer table.Close()
	mounted, err = lxcfs.MountedFiles(table)
	if err != nil && !errors.Is(err, mount.ErrSlowTable) {
		return id, nil, err
	}
	return id, mounted, cmp.Or(p.Signal(0), err) // still the process that was read
}

// lives tells whether the server of a file was asked in this pass and is not dead.
func (p *pass) lives(f lxcfs.MountedFile) bool {
	v := p.verdicts[f.Device]
	return v == alive || v == hung
}
