// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/member"
)

// round is one walk through all containers: each server is asked once in it, and
// lxcfs is looked at as rarely as can be.
type round struct {
	verdicts map[lxcfs.Device]error
	supplies map[supplyKey]*supply

	detached, attached int
}

// supplyKey is what a look depends on.
type supplyKey struct {
	path      string
	timeoutMS uint32
}

func newRound() *round {
	return &round{verdicts: map[lxcfs.Device]error{}, supplies: map[supplyKey]*supply{}}
}

func (r *round) close() {
	for _, s := range r.supplies {
		s.close()
	}
}

// heal heals one container.
func (r *round) heal(ctx context.Context, m *watched) error {
	first, err := openNamespace(m.Init)
	if err != nil {
		return err
	}
	// What is changed in the container's own namespace spreads to those of its
	// services, so it comes first.
	errs := []error{r.mend(ctx, m, first)}
	if !m.delay.over() {
		return errors.Join(errs...)
	}
	seen := map[ns.ID]bool{first.id: true}
	for _, pid := range processesIn(ctx, m.Cgroups) {
		id, err := ns.At(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err != nil || seen[id] {
			continue
		}
		seen[id] = true
		p, err := member.Verify(pid, m.Init.Container())
		if err != nil {
			continue // it has ended, or somebody else is in the cgroup
		}
		inner, err := openNamespace(p)
		if err == nil {
			err = r.mend(ctx, m, inner)
		}
		if err != nil && !errors.Is(err, proc.ErrEnded) {
			// Of inner containers some cannot be helped: their root may be closed
			// to us, or their mounts locked.
			log.G(ctx).WithError(err).WithField("id", m.ID).Debug("isolate: files of lxcfs in an inner mount namespace")
		}
		p.Close()
		if !m.delay.over() {
			return errors.Join(append(errs, err)...)
		}
	}
	maps.DeleteFunc(m.states, func(id ns.ID, _ *state) bool { return !seen[id] })
	m.delay = delay{}
	return errors.Join(errs...)
}

// mend heals one mount namespace.
func (r *round) mend(ctx context.Context, m *watched, ns namespace) error {
	s := m.state(ns)
	if err := r.ask(ctx, m, ns); err != nil {
		return err
	}
	gone := dead(ns.bound, func(b lxcfs.MountedFile) bool { return errors.Is(r.verdicts[b.Device], lxcfs.ErrDead) })
	before := len(s.lost)
	err := m.detach(ctx, ns, gone, s)
	r.detached += len(s.lost) - before
	if len(gone) > 0 && m.Refresh != nil {
		m.Refresh()
	}
	if err != nil || !s.lacks() {
		return err
	}
	supply := r.supply(m.LXCFS)
	files, err := supply.take(ctx)
	if err != nil {
		return nil //nolint:nilerr // kept in the supply
	}
	n, err := m.attach(ctx, ns, m.gets(files), s)
	if r.attached += n; n > 0 {
		m.Root, m.Seen = supply.served.Root, supply.served.Seen
		if m.Refresh != nil {
			m.Refresh()
		}
	}
	for _, f := range files {
		f.Mount.Close()
	}
	if err == nil {
		s.healed()
	}
	return err
}

// ask asks the servers of a namespace that were not asked in this round. The verdict
// is nil for one that lives, or of which nothing is known.
func (r *round) ask(ctx context.Context, m *watched, ns namespace) error {
	files := slices.DeleteFunc(slices.Clone(ns.bound), func(b lxcfs.MountedFile) bool { _, asked := r.verdicts[b.Device]; return asked })
	if len(files) == 0 {
		return nil
	}
	opened, err := m.open(ctx, ns, files)
	for device, f := range opened {
		r.verdicts[device] = lxcfs.Alive(ctx, f, m.LXCFS.Timeout())
		f.Close()
	}
	return err
}

func (r *round) supply(cfg config.LXCFS) *supply {
	key := supplyKey{cfg.Path, cfg.TimeoutMS}
	if r.supplies[key] == nil {
		cfg.Mode = config.LXCFSAuto
		r.supplies[key] = &supply{cfg: cfg}
	}
	return r.supplies[key]
}

// supply has sets of the files of an lxcfs to give away.
type supply struct {
	cfg    config.LXCFS
	look   *lxcfs.Probe // the last one, nil for none
	served lxcfs.Result
	err    error
}

// take returns a set that the caller closes. Linux 6.15 and later clone a
// detached mount; before that it takes a look for each set.
func (s *supply) take(ctx context.Context) ([]lxcfs.File, error) {
	if s.err != nil {
		return nil, s.err
	}
	if s.look == nil {
		if lxcfs.Waiting() {
			s.err = lxcfs.ErrHung
			return nil, s.err
		}
		s.look = lxcfs.StartProbe(ctx, s.cfg)
		if s.served, s.err = s.look.Result(); s.err != nil {
			return nil, s.err
		}
	}
	var files []lxcfs.File
	for _, f := range s.served.Files {
		mount, err := mount.CloneTree(int(f.Mount.Fd()), "", mount.CloneOptions{})
		if errors.Is(err, unix.EINVAL) {
			closeFiles(files)
			s.look = nil // what it found is the caller's
			return s.served.Files, nil
		}
		if err != nil {
			closeFiles(files)
			s.err = err
			return nil, err
		}
		files = append(files, lxcfs.File{Name: f.Name, Mount: mount})
	}
	return files, nil
}

func (s *supply) close() {
	if s.look != nil {
		s.look.Close() //nolint:errcheck // closes O_PATH descriptors
	}
}

func closeFiles(files []lxcfs.File) {
	for _, f := range files {
		f.Mount.Close()
	}
}
