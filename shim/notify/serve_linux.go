// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/shim/sysinfo"
)

// Limit is the longest delay of a pivot_root. After it the call goes on, with or without
// the views.
const Limit = 500 * time.Millisecond

// maxWarnings bounds the warnings that one container can cause.
const maxWarnings = 10

// notification is struct seccomp_notif of <linux/seccomp.h>. Its size is part
// of the ioctl's number, so the kernel never writes more.
type notification struct {
	id    uint64
	pid   uint32 // the thread, in our pid namespace; 0 if it is in none below
	flags uint32
	data  struct {
		nr                 int32
		arch               uint32
		instructionPointer uint64
		args               [6]uint64
	}
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// retryLater is the pause after an error that should not happen.
const retryLater = 100 * time.Millisecond

// serve answers notifications until no process is left that could send one, or the
// Notifier is closed. Nothing else ends it: without the descriptor, pivot_root would
// fail for good (ENOSYS) in all processes that have the filter.
func (n *Notifier) serve(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	raw = n.wrap(raw)
	wait := raw.Read
	for {
		if !n.pace() {
			return nil
		}
		var req notification
		var state state
		var ioctlErr error
		err := wait(func(fd uintptr) bool {
			n.budget.spend(metered(func() { state, ioctlErr = next(int(fd), &req) }))
			return state != idle
		})
		switch {
		case n.ctx.Err() != nil, state == finished:
			return nil //nolint:nilerr // closing is no error
		case err != nil:
			// Go's poller gives a descriptor up after one EPOLLERR, which means little;
			// see readiness.
			log.G(n.ctx).WithError(err).Debug("isolate: wait for seccomp notifications by poll(2) from now on")
			wait = func(done func(uintptr) bool) error { return n.poll(raw, done) }
		case ioctlErr != nil:
			log.G(n.ctx).WithError(ioctlErr).Warn("isolate: cannot receive a seccomp notification")
			select {
			case <-n.ctx.Done():
			case <-time.After(retryLater):
			}
		default:
			n.answer(raw, req)
		}
	}
}

// pace waits while the container has used up the time that it may make the shim spend.
// It returns false if the Notifier was closed.
func (n *Notifier) pace() bool {
	for {
		pause := n.budget.wait(time.Now())
		if pause <= 0 {
			return n.ctx.Err() == nil
		}
		select {
		case <-n.ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}

// poll is raw.Read without Go's poller. It looks from time to time whether the Notifier
// is closed, since Close waits for it.
func (n *Notifier) poll(raw syscall.RawConn, done func(uintptr) bool) error {
	for over := false; !over; {
		if n.ctx.Err() != nil {
			return n.ctx.Err()
		}
		err := raw.Control(func(fd uintptr) {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor
			unix.Poll(fds, int(retryLater.Milliseconds()))             //nolint:errcheck // done looks itself
			over = done(fd)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

type state int

const (
	idle     state = iota // nothing to receive now
	received              // req is filled, or can be
	finished              // no process has the filter any more
	unknown               // a signal has interrupted the kernel's look
)

// readiness turns the result of poll(2) into a state. POLLERR alone says nothing:
// seccomp_notify_poll returns it when a signal for the thread (Go sends itself
// some) keeps it from waiting for a lock.
func readiness(revents int16) state {
	switch {
	case revents&unix.POLLIN != 0:
		return received
	case revents&(unix.POLLHUP|unix.POLLNVAL) != 0:
		return finished
	case revents != 0:
		return unknown
	}
	return idle
}

// next receives a notification without waiting for one. The ioctl would wait, so next
// calls it only if poll(2) says that a notification is there. No one else reads the
// descriptor; if the caller dies before the ioctl, that returns ENOENT.
func next(fd int, req *notification) (state, error) {
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor
		_, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return received, os.NewSyscallError("poll", err)
		}
		switch s := readiness(fds[0].Revents); s {
		case received:
		case unknown:
			continue // at once: there may be no other event
		default:
			return s, nil
		}
		*req = notification{} // the kernel refuses one that is not zero
		switch err := ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(req)); {
		case err == nil:
			return received, nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT):
		default:
			return received, os.NewSyscallError("ioctl SECCOMP_IOCTL_NOTIF_RECV", err)
		}
	}
}

// answer answers in the background: pivot_root goes on as soon as the views are attached
// or Limit is over; for sysinfo see info.
func (n *Notifier) answer(raw syscall.RawConn, req notification) {
	proceed := sync.OnceFunc(func() {
		n.send(raw, response{id: req.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		proceed()
		return
	}
	work, cost := func() { n.views(raw, req, proceed) }, estimate
	if layout, ok := sysinfo.LayoutOf(req.data.arch, req.data.nr); ok && n.tell != nil {
		n.budget.spend(wakeup)
		if !n.budget.plenty(time.Now()) {
			n.informed(errSpent)
			proceed()
			return
		}
		work, cost = func() { n.info(raw, req, layout) }, infoEstimate
	}
	if isMount(req.data.arch, req.data.nr) {
		if n.shelve == nil {
			proceed()
			return
		}
		work = func() { n.mount(raw, req, proceed) }
	}
	n.budget.spend(cost)
	n.answers.Go(func() { n.budget.spend(metered(work) - cost) })
}

func (n *Notifier) send(raw syscall.RawConn, r response) {
	var err error
	closed := raw.Control(func(fd uintptr) {
		err = ioctl(int(fd), unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
	})
	// closed: no process has the filter any more. ENOENT: the caller was killed, or a
	// signal made it call again.
	if closed == nil && err != nil && !errors.Is(err, unix.ENOENT) {
		log.G(n.ctx).WithError(err).Warn("isolate: cannot answer a seccomp notification")
	}
}

// valid tells whether the caller still waits for its answer.
func valid(raw syscall.RawConn, req notification) bool {
	ok := false
	err := raw.Control(func(fd uintptr) {
		ok = ioctl(int(fd), unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&req.id)) == nil
	})
	return ok && err == nil
}

// views attaches the views, or gives up after Limit, and lets the call go on.
func (n *Notifier) views(raw syscall.RawConn, req notification, proceed func()) {
	started := time.Now()
	timer := time.AfterFunc(Limit, proceed)
	defer timer.Stop()
	defer proceed()
	ctx, cancel := context.WithTimeout(n.ctx, Limit)
	defer cancel()
	// Also without views, which the healer can attach later.
	if err := n.share(int(req.pid)); err != nil {
		log.G(ctx).WithError(err).Debug("isolate: CPU quota of an inner container")
	}
	r, err := n.graft(ctx, req, func() bool { return valid(raw, req) })
	l := log.G(ctx).WithFields(log.Fields{"result": r, "took": time.Since(started)})
	switch {
	case err == nil, errors.Is(err, errLater):
		l.Debug("isolate: inner container")
	case n.ctx.Err() != nil: // closing
	case n.warnings.Add(1) > maxWarnings: // the container can make any number
		l.WithError(err).Debug("isolate: an inner container sees the host's resources")
	default:
		l.WithError(err).Warn("isolate: an inner container sees the host's resources")
	}
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
		switch {
		case errno == 0:
			return nil
		case errno == unix.EINTR && request != unix.SECCOMP_IOCTL_NOTIF_RECV:
		default:
			return errno
		}
	}
}
