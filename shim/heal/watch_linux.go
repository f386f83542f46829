// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

// How often lxcfs is looked for while a container lacks files.
const (
	// firstTry and maxTries are for a server that is about to come: a mount may
	// be there before it answers, and a supervisor may wait before it starts one.
	// The time doubles each time, so that all take half a minute.
	firstTry = 250 * time.Millisecond
	maxTries = 7
	// settling is how long mounts are left to settle after a change; it doubles
	// up to maxSettling with each change that is not one of lxcfs.
	settling    = 250 * time.Millisecond
	maxSettling = 30 * time.Second
	// again is when lxcfs is looked at although its mounts look the same: numbers
	// of mounts and devices are used again.
	again = 15 * time.Second
)

// watch waits for what changes, and heals. It is one goroutine, which nearly
// always is in poll(2).
type watch struct {
	healer  *Healer
	wake    int
	servers []server
	roots   []string

	mountinfo int // descriptor, -1 for none
	asked     bool
	tries     int
	pause     time.Duration
	last      time.Time
	mounts    []byte // lines of lxcfs in mountinfo at the last look
}

func (w *watch) run(ctx context.Context) {
	w.mountinfo, w.pause = -1, settling
	defer func() {
		w.forget()
		w.unwatchMounts()
	}()
	w.sleep(settling) // a container that is over by then costs nothing
	for {
		members, ok := w.healer.list()
		if !ok {
			return
		}
		w.step(ctx, members)
	}
}

// step heals what needs it, or waits until something changes.
func (w *watch) step(ctx context.Context, members []*watched) {
	lacking := slices.ContainsFunc(members, func(m *watched) bool { return m.lacks() && m.delay.over() })
	served := slices.ContainsFunc(members, func(m *watched) bool { return !m.lacks() })
	if served && len(w.servers) == 0 && !w.asked {
		w.find(ctx, members)
		w.asked = true
		if w.late(members) { // it may have died before it was found
			w.heal(ctx, members)
			return
		}
	}
	if lacking && w.last.IsZero() {
		w.heal(ctx, members)
		return
	}
	timeout := time.Duration(-1)
	if blind := len(w.servers) == 0; lacking || blind {
		w.watchMounts()
	} else {
		w.unwatchMounts()
	}
	late := slices.DeleteFunc(slices.Clone(members), func(m *watched) bool { return !m.delay.late() })
	retry := false
	switch {
	case lacking && w.tries < maxTries:
		timeout = firstTry << w.tries
	case lacking && lxcfs.Waiting():
		timeout = again
	case len(late) > 0:
		timeout, retry = again, true
	}
	switch w.wait(timeout) {
	case serverEnded:
		w.forget()
		w.tries = 0
		w.heal(ctx, members)
	case mountsChanged:
		w.settle(ctx, members)
	case timedOut:
		// Each question that a server does not answer leaves a process waiting.
		if retry {
			w.healed(healAll(ctx, late))
		} else if w.tries++; w.tries <= maxTries || !lxcfs.Waiting() {
			w.heal(ctx, members)
		}
	case containersChanged:
		w.changed(members)
	}
}

// changed starts anew for other containers.
func (w *watch) changed(members []*watched) {
	w.tries, w.last = 0, time.Time{}
	for _, m := range members {
		if m.Root != "" && !slices.Contains(w.roots, m.Root) {
			w.forget()
		}
	}
}

// find looks for the processes to watch.
func (w *watch) find(ctx context.Context, members []*watched) {
	w.roots = nil
	for _, m := range members {
		if m.Root != "" && !slices.Contains(w.roots, m.Root) {
			w.roots = append(w.roots, m.Root)
		}
	}
	w.servers = findServers(w.roots)
	if len(w.servers) == 0 {
		log.G(ctx).Debug("isolate: the process of lxcfs is not seen; only a new one will be noticed")
	}
}

// late tells whether a server may be another one than the one that a container
// has files of.
func (w *watch) late(members []*watched) bool {
	if len(w.servers) == 0 {
		return true
	}
	for _, s := range w.servers {
		for _, m := range members {
			if m.Root != "" && s.start+proc.Tick > m.Seen {
				return true
			}
		}
	}
	return false
}

// forget stops watching processes.
func (w *watch) forget() {
	for _, s := range w.servers {
		s.Close()
	}
	w.servers, w.asked = nil, false
}

func (w *watch) heal(ctx context.Context, members []*watched) {
	w.last, w.mounts = time.Now(), lxcfsMounts()
	w.healed(healAll(ctx, members))
}

// healed starts to watch the server that containers have got files of.
func (w *watch) healed(r *round) {
	if r.attached == 0 {
		return
	}
	w.forget()
	w.tries, w.pause = 0, settling
}

// settle lets mounts settle, and heals if the mounts of lxcfs are others now.
func (w *watch) settle(ctx context.Context, members []*watched) {
	if w.sleep(w.pause) == containersChanged {
		w.changed(members)
		return
	}
	switch changed := !bytes.Equal(lxcfsMounts(), w.mounts); {
	case changed:
		w.forget()
		w.tries, w.pause = 0, settling
	case lxcfs.Waiting() || time.Since(w.last) < again:
		w.pause = min(2*w.pause, maxSettling)
		return
	}
	w.heal(ctx, members)
}

// event is what has ended a wait.
type event int

const (
	timedOut event = iota
	serverEnded
	mountsChanged
	containersChanged
)

func (w *watch) wait(timeout time.Duration) event {
	fds := []unix.PollFd{{Fd: int32(w.wake), Events: unix.POLLIN}} //nolint:gosec // a descriptor
	if w.mountinfo >= 0 {
		fds = append(fds, unix.PollFd{Fd: int32(w.mountinfo), Events: unix.POLLPRI}) //nolint:gosec // as above
	}
	for _, s := range w.servers {
		fds = append(fds, unix.PollFd{Fd: int32(s.FD()), Events: unix.POLLIN}) //nolint:gosec // as above
	}
	if !poll(fds, timeout) {
		return timedOut
	}
	if fds[0].Revents != 0 {
		w.drain()
		return containersChanged
	}
	if w.mountinfo >= 0 && fds[1].Revents != 0 {
		return mountsChanged
	}
	return serverEnded
}

// sleep waits for a time, or until the healer wakes it up.
func (w *watch) sleep(d time.Duration) event {
	if poll([]unix.PollFd{{Fd: int32(w.wake), Events: unix.POLLIN}}, d) { //nolint:gosec // a descriptor
		w.drain()
		return containersChanged
	}
	return timedOut
}

func (w *watch) drain() {
	unix.Read(w.wake, make([]byte, 8)) //nolint:errcheck // EAGAIN: nothing to read
}

// poll is poll(2), for ever if timeout is negative. It tells whether something
// has happened.
func poll(fds []unix.PollFd, timeout time.Duration) bool {
	var deadline time.Time
	if timeout >= 0 {
		deadline = time.Now().Add(timeout)
	}
	for {
		ms := -1
		if timeout >= 0 {
			ms = int(max(time.Until(deadline), 0)/time.Millisecond) + 1
		}
		n, err := unix.Poll(fds, ms)
		switch {
		case n > 0:
			return true
		case errors.Is(err, unix.EINTR) && (timeout < 0 || time.Now().Before(deadline)):
		default:
			return false
		}
	}
}

// watchMounts opens mountinfo, of which poll(2) tells changes from then on.
func (w *watch) watchMounts() {
	if w.mountinfo >= 0 {
		return
	}
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		w.mountinfo = fd
	}
}

func (w *watch) unwatchMounts() {
	if w.mountinfo >= 0 {
		unix.Close(w.mountinfo)
		w.mountinfo = -1
	}
}

// lxcfsMounts are the lines of lxcfs in our own mountinfo.
func lxcfsMounts() []byte {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var out []byte
	for line := range bytes.Lines(table) {
		if bytes.Contains(line, []byte(" - fuse.lxcfs ")) {
			out = append(out, line...)
		}
	}
	return out
}
