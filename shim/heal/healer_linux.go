// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/member"
)

// Container is a container whose lxcfs files are kept in order.
type Container struct {
	ID string
	// Init is its first process.
	Init *member.Process
	// Cgroups are its directories, one in each hierarchy.
	Cgroups []string
	LXCFS   config.LXCFS
	// Root is where the lxcfs is mounted that it has files of, "" for none.
	Root string
	// Files are those, relative to the container's root, and those that it cannot
	// have.
	Files []string
	// Withheld are files that it is not to get from any server.
	Withheld []string
	// Seen is when, since boot, that lxcfs was seen alive.
	Seen time.Duration
	// Refresh is called when a server has died, and when there is a new one; nil
	// for nothing.
	Refresh func()
}

// Healer watches lxcfs for all containers of a shim. The zero value is ready, and
// costs nothing before the first [Healer.Add].
type Healer struct {
	mu      sync.Mutex
	members map[string]*watched
	removed []*watched // whose descriptors the watch may be using
	wake    int        // eventfd, while the watch runs
	running bool
}

// watched is a container and what is known of its files.
type watched struct {
	Container
	states map[ns.ID]*state // by mount namespace
	delay  delay
}

// Add begins to watch for a container. It does not wait for anything; ctx serves
// for logging only.
func (h *Healer) Add(ctx context.Context, c Container) error {
	m, err := newWatched(c)
	if err != nil {
		return fmt.Errorf("watch lxcfs for container %q: %w", c.ID, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.running {
		wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			m.close()
			return fmt.Errorf("watch lxcfs: %w", os.NewSyscallError("eventfd", err))
		}
		h.wake, h.running, h.members = wake, true, map[string]*watched{c.ID: m}
		w := &watch{healer: h, wake: wake}
		go w.run(context.WithoutCancel(ctx))
		return nil
	}
	h.members[c.ID] = m
	h.signal()
	return nil
}

// Remove ends the watch for a container.
func (h *Healer) Remove(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.members[id]; m != nil {
		delete(h.members, id)
		h.removed = append(h.removed, m)
		h.signal()
	}
}

// signal wakes the watch up; it is called with the lock held.
func (h *Healer) signal() {
	unix.Write(h.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) //nolint:errcheck // EAGAIN: it is woken up already
}

// list returns the containers to the watch, or false if there are none: then the
// watch has ended.
func (h *Healer) list() ([]*watched, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.removed {
		m.close()
	}
	h.removed = nil
	if len(h.members) == 0 {
		h.running = false
		unix.Close(h.wake)
		return nil, false
	}
	list := make([]*watched, 0, len(h.members))
	for _, m := range h.members {
		list = append(list, m)
	}
	return list, true
}

func newWatched(c Container) (*watched, error) {
	m := &watched{Container: c, states: map[ns.ID]*state{}}
	var err error
	if m.Init, err = c.Init.Dup(); err != nil {
		return nil, err
	}
	own, err := ns.At(m.Init.Path("ns/mnt"))
	if err != nil {
		m.close()
		return nil, err
	}
	m.states[own] = newState(c.Files, true)
	return m, nil
}

func (m *watched) close() {
	m.Init.Close()
}

// state returns what is known of a namespace.
func (m *watched) state(n namespace) *state {
	s := m.states[n.id]
	if s == nil {
		// Of an inner one only what was lost comes back.
		s = newState(nil, false)
		m.states[n.id] = s
	}
	return s
}

// gets returns the files of an lxcfs that the container gets.
func (m *watched) gets(files []lxcfs.File) []lxcfs.File {
	return slices.DeleteFunc(slices.Clone(files), func(f lxcfs.File) bool { return slices.Contains(m.Withheld, f.Name) })
}

// lacks tells whether the container could be missing files.
func (m *watched) lacks() bool {
	for _, s := range m.states {
		if s.lacks() {
			return true
		}
	}
	return false
}

// healAll heals all containers, and logs what became of it.
func healAll(ctx context.Context, members []*watched) *round {
	r := newRound()
	defer r.close()
	slices.SortStableFunc(members, func(a, b *watched) int { return cmp.Compare(a.delay.failures, b.delay.failures) })
	for _, m := range members {
		if !m.delay.over() {
			continue
		}
		known := m.delay.late()
		err := r.heal(ctx, m)
		if known && errors.Is(err, errHeldUp) {
			log.G(ctx).WithError(err).WithField("id", m.ID).Debug("isolate: files of lxcfs could not be kept in order")
			continue
		}
		if err != nil && !errors.Is(err, proc.ErrEnded) && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			log.G(ctx).WithError(err).WithField("id", m.ID).Warn("isolate: files of lxcfs could not be kept in order")
		}
	}
	if r.detached > 0 {
		log.G(ctx).WithField("files", r.detached).Warn("isolate: lxcfs has died: /proc and /sys show the host's resources until it is back")
	}
	if r.attached > 0 {
		log.G(ctx).WithField("files", r.attached).Info("isolate: lxcfs is back: /proc and /sys show the containers' resources")
	}
	return r
}
