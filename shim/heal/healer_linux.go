// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/ns"
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
	// Origin is the lxcfs of which it has files.
	lxcfs.Origin
	// Files are the files that it has, relative to its root, and those that it cannot
	// have.
	Files []string
	// Withheld are files that it is not to get from any lxcfs.
	Withheld []string
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

// watched is a container and what is known of it.
type watched struct {
	Container
	places map[ns.ID]places // by mount namespace
	delay  delay
	ended  lxcfs.Device // of an lxcfs whose process has ended
	stale  bool         // it may not show what it should
	unsure bool         // a server of its files did not answer
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
	m := &watched{Container: c}
	var err error
	if m.Init, err = c.Init.Dup(); err != nil {
		return nil, err
	}
	id, err := ns.At(m.Init.Path("ns/mnt"))
	if err != nil {
		m.close()
		return nil, err
	}
	m.places = map[ns.ID]places{id: newPlaces(true, c.Files...)}
	m.stale = m.lacking()
	return m, nil
}

func (m *watched) close() {
	m.Init.Close()
}

// gets returns the files of an lxcfs that the container gets.
func (m *watched) gets(files []lxcfs.File) []lxcfs.File {
	return slices.DeleteFunc(slices.Clone(files), func(f lxcfs.File) bool { return slices.Contains(m.Withheld, f.Name) })
}

// lacking tells whether the container could be owed a file.
func (m *watched) lacking() bool {
	for _, p := range m.places {
		if p.lacking() {
			return true
		}
	}
	return false
}

// refresh tells the container's other user of lxcfs files that their server has
// changed.
func (m *watched) refresh() {
	if m.Refresh != nil {
		m.Refresh()
	}
}
