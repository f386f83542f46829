// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/lookup"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/proc"
)

// watch waits for what may change the files of containers, and reconciles those
// containers. It is one goroutine, which nearly always is in poll(2).
type watch struct {
	healer  *Healer
	wake    int
	servers []server
	roots   []string // of the servers that were searched for
	known   bool     // servers were searched for since the last change

	mountinfo int // descriptor, -1 for none
	tries     int
	pause     time.Duration
	last      time.Time
	mounts    []byte // lines of lxcfs in mountinfo at that time
	heads     []int  // what was mounted where an lxcfs is expected, a moment before

	hang   hang
	worked bool // files were changed since memory was given back
}

func (w *watch) run(ctx context.Context) {
	w.mountinfo, w.pause = -1, settling
	defer func() {
		w.forget()
		w.unwatchMounts()
	}()
	w.sleep(settling) // a container that is over by then costs nothing
	for {
		containers, ok := w.healer.list()
		if !ok {
			return
		}
		w.step(ctx, containers)
	}
}

// step reconciles the containers that may not show what they should, or waits until
// something changes.
func (w *watch) step(ctx context.Context, containers []*watched) {
	due := slices.DeleteFunc(slices.Clone(containers), func(c *watched) bool { return !c.stale || !c.delay.over() })
	if len(due) > 0 {
		w.reconcile(ctx, due)
		return
	}
	if w.search(ctx, containers) {
		return // some may be due now
	}
	s := situation{hung: w.hang.hangs || w.hang.silent, tries: w.tries}
	for _, c := range containers {
		s.pending = s.pending || c.stale || c.unsure || c.lacking()
		s.late = s.late || c.delay.late()
	}
	if w.worked && !s.pending {
		// Of what the work took, the garbage collector would keep 2 MB for minutes, in
		// each shim of the host at once.
		w.worked = false
		debug.FreeOSMemory()
	}
	if s.pending || len(w.servers) == 0 {
		w.watchMounts()
	} else {
		w.unwatchMounts()
	}
	switch w.await(s.timeout(), w.looks(containers)) {
	case serverEnded:
		w.end(containers)
		w.changed(containers)
	case serverSuspected:
		w.suspect(ctx, containers)
	case mountsChanged:
		w.settle(containers)
	case containersChanged:
		w.tries = 0
	case timedOut:
		w.tries++
		for _, c := range containers {
			c.stale = c.stale || c.unsure || c.delay.late() || c.lacking()
		}
	}
}

// reconcile reconciles containers. If they have got files, their server is watched
// from now on.
func (w *watch) reconcile(ctx context.Context, containers []*watched) {
	w.heads = heads(containers)
	w.last, w.mounts = time.Now(), lxcfsMounts()
	slices.SortStableFunc(containers, func(a, b *watched) int { return cmp.Compare(a.delay.failures, b.delay.failures) })
	p := newPass(&w.hang)
	p.reconcile(ctx, containers)
	w.abort(ctx, containers, p.late)
	w.worked = w.worked || p.detached+p.attached > 0
	if p.attached > 0 {
		w.changed(nil)
	}
	if len(p.sources) > 0 {
		w.hang.silent = p.silent
	}
}

// changed starts anew since there may be another lxcfs, for which containers have to be
// reconciled.
func (w *watch) changed(containers []*watched) {
	w.forget()
	w.hang.over()
	w.tries, w.pause = 0, settling
	for _, c := range containers {
		c.stale = true
	}
}

// settle lets mounts settle, and sees whether the mounts of lxcfs are others now.
func (w *watch) settle(containers []*watched) {
	w.rest(containers)
	w.heads = heads(containers)
	switch {
	case !bytes.Equal(lxcfsMounts(), w.mounts):
		w.changed(containers)
	case time.Since(w.last) < soon(w.tries):
		w.pause = min(2*w.pause, maxSettling)
	default:
		w.tries++
		for _, c := range containers {
			c.stale = true
		}
	}
}

// rest lets time pass before all mounts are looked at again. It ends early when another
// mount is where an lxcfs is expected: to see that costs little on any host.
func (w *watch) rest(containers []*watched) {
	for end := time.Now().Add(w.pause); ; {
		left := max(0, time.Until(end))
		if w.sleep(min(left, lookEvery)) == containersChanged {
			w.tries = 0
			return
		}
		if left <= lookEvery || !slices.Equal(heads(containers), w.heads) {
			return
		}
	}
}

// search looks for the processes to watch, and tells whether it did: once after each
// change, and for a container with files of another lxcfs. A server may have died before
// it was found: then containers may have files of a dead one.
func (w *watch) search(ctx context.Context, containers []*watched) bool {
	var roots []string
	needed, known := false, w.known
	for _, c := range containers {
		needed = needed || !c.lacking()
		if c.Root != "" && !slices.Contains(roots, c.Root) {
			roots = append(roots, c.Root)
			known = known && slices.Contains(w.roots, c.Root)
		}
	}
	if !needed { // then only the probe tells that it hangs
		w.hang.hangs = w.hang.hangs || w.hang.silent
	}
	if known || !needed && !w.hang.hangs {
		return false
	}
	w.forget()
	w.known, w.roots, w.servers = true, roots, findServers(roots)
	w.hang.open(w.servers)
	if len(w.servers) == 0 {
		log.G(ctx).Debug("isolate: the process of lxcfs is not seen; only a new one will be noticed")
	}
	for _, c := range containers {
		if w.replaced(c) {
			c.stale = true
			if w.gone(c) {
				c.ended = c.Device
			}
		}
	}
	return true
}

// end notes of which containers the server has ended. That of others may be alive and
// busy, and take its time to answer.
func (w *watch) end(containers []*watched) {
	for _, s := range w.servers {
		if ended, err := s.Ended(0); err != nil || !ended {
			continue
		}
		for _, c := range containers {
			if s.serves(c.Origin) {
				c.ended = c.Device
			}
		}
	}
}

// replaced tells whether a server may be another one than the one of which a container
// has files.
func (w *watch) replaced(c *watched) bool {
	return len(w.servers) == 0 || c.Root != "" &&
		slices.ContainsFunc(w.servers, func(s server) bool { return s.start+proc.Tick > c.Seen })
}

// gone tells whether no server can be the one of which a container has files.
func (w *watch) gone(c *watched) bool {
	return !slices.ContainsFunc(w.servers, func(s server) bool { return s.before(c.Seen) })
}

// forget stops watching processes and their connections.
func (w *watch) forget() {
	for _, s := range w.servers {
		s.Close()
	}
	w.servers, w.known = nil, false
	w.hang.close()
}

// event is what has ended a wait.
type event int

const (
	timedOut event = iota
	serverEnded
	serverSuspected
	mountsChanged
	containersChanged
)

// await is wait that looks for signs of a hang meanwhile.
func (w *watch) await(timeout time.Duration, looking bool) event {
	if !looking {
		return w.wait(timeout)
	}
	for end := time.Now().Add(timeout); ; {
		step := lookEvery
		if timeout >= 0 {
			step = min(step, max(0, time.Until(end)))
		}
		if e := w.wait(step); e != timedOut {
			return e
		}
		if step == lookEvery && w.look() {
			return serverSuspected
		}
		if timeout >= 0 && !time.Now().Before(end) {
			return timedOut
		}
	}
}

func (w *watch) wait(timeout time.Duration) event {
	fds := []unix.PollFd{{Fd: int32(w.wake), Events: unix.POLLIN}} //nolint:gosec // a descriptor
	for _, s := range w.servers {
		fds = append(fds, unix.PollFd{Fd: int32(s.FD()), Events: unix.POLLIN}) //nolint:gosec // as above
	}
	servers := fds[1:]
	if w.mountinfo >= 0 {
		fds = append(fds, unix.PollFd{Fd: int32(w.mountinfo), Events: unix.POLLPRI}) //nolint:gosec // as above
		servers = fds[1 : len(fds)-1]
	}
	switch {
	case !poll(fds, timeout):
		return timedOut
	case fds[0].Revents != 0:
		w.drain()
		return containersChanged
	case slices.ContainsFunc(servers, func(fd unix.PollFd) bool { return fd.Revents != 0 }):
		return serverEnded
	}
	return mountsChanged
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

// usualRoot is where distributions mount lxcfs.
const usualRoot = "/var/lib/lxcfs"

// heads are the numbers of the mounts where an lxcfs is expected; 0 where that
// cannot be told at once.
func heads(containers []*watched) []int {
	roots := []string{usualRoot}
	for _, c := range containers {
		for _, root := range []string{c.LXCFS.Path, c.Root} {
			if root != "" && !slices.Contains(roots, root) {
				roots = append(roots, root)
			}
		}
	}
	slices.Sort(roots) // containers come in any order
	ids := make([]int, len(roots))
	for n, root := range roots {
		if dir, err := lookup.Cached(root); err == nil && dir != nil {
			ids[n], _ = mount.ID(dir) // 0 before Linux 5.8
			dir.Close()
		}
	}
	return ids
}
