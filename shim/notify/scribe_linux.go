// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/fork"
)

// scribe is a process that writes answers into the memory of callers, which can hold up
// who writes: a page can be one of a FUSE file of the container, or of a volume whose
// server hangs. A fork for each answer would take twenty times as long as the answer, so
// a scribe serves many and ends when nobody has asked for a while. It is a copy of the
// shim as child is, and as that one keeps no descriptor but its socket.
type scribe struct {
	socket int           // ours
	ended  chan struct{} // closed when the process is gone
	kill   func()
	calls  atomic.Int64

	// What run uses.
	theirs  uintptr
	text    writing
	result  int32    // errno
	control [32]byte // a struct cmsghdr with one descriptor
	iov     unix.Iovec
	message unix.Msghdr
}

// writing is the message to a scribe. The memory's descriptor comes with it.
type writing struct {
	address uint64
	length  uint64
	text    [128]byte
}

const (
	// scribeIdle is how long a scribe waits for the next answer before it ends.
	scribeIdle = time.Second
	// lookAgain is how often who waits for a scribe looks at the clock.
	lookAgain = 20 * time.Millisecond
	// scribeCost is what an answer costs a scribe in processor time, 4 µs where it was
	// measured. It is charged at once; what a scribe has really used, at its end.
	scribeCost = 8 * time.Microsecond
	// maxScribes is how many can hang at a time.
	maxScribes = 4
)

var (
	errLost = errors.New("the writing process has ended")
	errSlow = errors.New("the caller's memory does not take the answer in time")
	errBusy = errors.New("too many processes hang in the container's memory")
)

// pen is held by whom the scribe serves.
type pen struct {
	hold    chan struct{} // full while held
	living  chan struct{} // one place for each scribe that has not ended
	current *scribe
	budget  *budget
}

func newPen(b *budget) pen {
	return pen{hold: make(chan struct{}, 1), living: make(chan struct{}, maxScribes), budget: b}
}

// write writes to an address of a memory. If it returns an error, nothing will be written
// any more: a process that was killed gets no page (fatal_signal_pending in
// __get_user_pages of mm/gup.c), even if it cannot end as yet.
func (p *pen) write(memory *os.File, address uint64, text []byte, deadline time.Time) error {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case p.hold <- struct{}{}:
		defer func() { <-p.hold }()
	case <-timer.C:
		return errSlow
	}
	for {
		s, fresh, err := p.scribe()
		if err != nil {
			return err
		}
		err = s.write(memory, address, text, deadline)
		if errors.Is(err, errLost) || errors.Is(err, errSlow) {
			p.drop(time.Now().Add(Limit))
		}
		if !errors.Is(err, errLost) || fresh { // one that is not fresh can have ended of idleness
			return err
		}
	}
}

// scribe returns the scribe, a new one if there is none.
func (p *pen) scribe() (_ *scribe, fresh bool, _ error) {
	if s := p.current; s != nil {
		select {
		case <-s.ended:
			p.drop(time.Time{})
		default:
			return s, false, nil
		}
	}
	select {
	case p.living <- struct{}{}:
	default:
		return nil, false, errBusy
	}
	s, err := newScribe(p.budget, func() { <-p.living })
	p.current = s
	return s, true, err
}

// drop ends the scribe, and waits for that at most until the deadline.
func (p *pen) drop(deadline time.Time) {
	s := p.current
	if s == nil {
		return
	}
	p.current = nil
	s.kill()
	unix.Close(s.socket)
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-s.ended:
	case <-timer.C:
	}
}

// close ends the scribe. Nobody writes any more.
func (p *pen) close() {
	p.hold <- struct{}{}
	p.drop(time.Time{})
	<-p.hold
}

// newScribe starts one. done is called when it is gone, or was never there.
func newScribe(b *budget, done func()) (*scribe, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		done()
		return nil, os.NewSyscallError("socketpair", err)
	}
	s := &scribe{socket: pair[0], theirs: uintptr(pair[1]), ended: make(chan struct{})} //nolint:gosec // a descriptor
	for i, wait := range [2]time.Duration{lookAgain, scribeIdle} {
		timeout := unix.NsecToTimeval(wait.Nanoseconds())
		err = errors.Join(err, os.NewSyscallError("setsockopt", unix.SetsockoptTimeval(pair[i], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)))
	}
	if err == nil {
		s.iov.Base = (*byte)(unsafe.Pointer(&s.text))
		s.iov.SetLen(int(unsafe.Sizeof(s.text)))
		s.message.Iov = &s.iov
		s.message.SetIovlen(1)
		s.message.Control = &s.control[0]
		err = s.start(b, done)
	} else {
		done()
	}
	unix.Close(pair[1])
	if err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	return s, nil
}

// start forks. The process dies with the thread that has forked it, so a goroutine stays
// on that thread, asleep, until the process has ended.
func (s *scribe) start(b *budget, done func()) error {
	started := make(chan error, 1)
	go func() {
		defer done()
		defer close(s.ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var process *fork.Process
		var err error
		b.spend(metered(func() { process, err = fork.Start(0, s.fork) }))
		if err == nil {
			s.kill = func() { process.Kill() } //nolint:errcheck // nothing else can be done
		}
		started <- err
		if err != nil {
			return
		}
		exit, _ := process.Wait(time.Time{}) // ECHILD: it has ended
		b.spend(exit.Used - scribeCost*time.Duration(s.calls.Load()))
	}()
	return <-started
}

// write has the scribe write.
func (s *scribe) write(memory *os.File, address uint64, text []byte, deadline time.Time) error {
	w := writing{address: address, length: uint64(len(text))}
	if copy(w.text[:], text) < len(text) {
		return unix.EMSGSIZE
	}
	message := unsafe.Slice((*byte)(unsafe.Pointer(&w)), unsafe.Sizeof(w))
	if err := unix.Sendmsg(s.socket, message, unix.UnixRights(int(memory.Fd())), nil, unix.MSG_NOSIGNAL); err != nil {
		return errLost
	}
	s.calls.Add(1)
	var result [4]byte
	for {
		n, err := unix.Read(s.socket, result[:])
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			if !time.Now().Before(deadline) {
				return errSlow
			}
		case err != nil || n != len(result):
			return errLost
		default:
			if errno := *(*int32)(unsafe.Pointer(&result)); errno != 0 {
				return syscall.Errno(errno) //nolint:gosec // an errno
			}
			return nil
		}
	}
}

// fork forks the process, which writes.
//
//go:nosplit
//go:norace
func (s *scribe) fork(c *fork.Call) {
	if c.InChild() {
		s.run()
		fork.Exit(0)
	}
}

// run does the work of the process. There is no Go runtime in it: run must not grow the
// stack, allocate, or panic.
//
//go:nosplit
//go:norace
func (s *scribe) run() {
	fork.Keep(s.theirs)
	for {
		s.message.Controllen = 32 // of control
		n, _, errno := syscall.RawSyscall(unix.SYS_RECVMSG, s.theirs, uintptr(unsafe.Pointer(&s.message)), unix.MSG_CMSG_CLOEXEC)
		if errno != 0 || n != unsafe.Sizeof(s.text) || s.message.Controllen < unix.SizeofCmsghdr+4 {
			return // idle, or closed
		}
		fd := uintptr(*(*int32)(unsafe.Pointer(&s.control[unix.SizeofCmsghdr])))
		n, _, errno = syscall.RawSyscall6(unix.SYS_PWRITE64, fd, uintptr(unsafe.Pointer(&s.text.text)), uintptr(s.text.length), uintptr(s.text.address), 0, 0)
		if errno == 0 && n != uintptr(s.text.length) {
			errno = unix.EFAULT // only the first page is writable
		}
		syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		s.result = int32(errno)
		syscall.RawSyscall(unix.SYS_WRITE, s.theirs, uintptr(unsafe.Pointer(&s.result)), unsafe.Sizeof(s.result))
	}
}
