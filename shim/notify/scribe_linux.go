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

// scribe is a process that reads arguments in the memory of callers and writes answers
// there, which can hold it up: a page can be one of a FUSE file of the container, or of a volume whose
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
	reply   reply
	control [32]byte // a struct cmsghdr with one descriptor
	iov     unix.Iovec
	message unix.Msghdr
}

// writing is the message to a scribe. The memory's descriptor comes with it.
type writing struct {
	address uint64
	length  uint64
	read    uint64 // 1 if it is to be read, and no text comes with it
	text    [128]byte
}

// reply is the message from a scribe, without the end of the text that it has not read.
type reply struct {
	errno  int32
	length int32
	text   [4096]byte
}

const replyHeader = 8

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
	w := writing{address: address, length: uint64(len(text))}
	if copy(w.text[:], text) < len(text) {
		return unix.EMSGSIZE
	}
	_, err := p.do(memory, &w, deadline)
	return err
}

// read reads at an address of a memory, up to length bytes or to where nothing can be read.
func (p *pen) read(memory *os.File, address uint64, length int, deadline time.Time) ([]byte, error) {
	return p.do(memory, &writing{address: address, length: uint64(min(length, len(reply{}.text))), read: 1}, deadline)
}

func (p *pen) do(memory *os.File, w *writing, deadline time.Time) ([]byte, error) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case p.hold <- struct{}{}:
		defer func() { <-p.hold }()
	case <-timer.C:
		return nil, errSlow
	}
	for {
		s, fresh, err := p.scribe()
		if err != nil {
			return nil, err
		}
		text, err := s.do(memory, w, deadline)
		if errors.Is(err, errLost) || errors.Is(err, errSlow) {
			p.drop(time.Now().Add(Limit))
		}
		if !errors.Is(err, errLost) || fresh { // one that is not fresh can have ended of idleness
			return text, err
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

// do has the scribe write or read.
func (s *scribe) do(memory *os.File, w *writing, deadline time.Time) ([]byte, error) {
	message := unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
	if err := unix.Sendmsg(s.socket, message, unix.UnixRights(int(memory.Fd())), nil, unix.MSG_NOSIGNAL); err != nil {
		return nil, errLost
	}
	s.calls.Add(1)
	var r reply
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Sizeof(r))
	for {
		n, err := unix.Read(s.socket, buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			if !time.Now().Before(deadline) {
				return nil, errSlow
			}
		case err != nil || n != replyHeader+int(r.length):
			return nil, errLost
		case r.errno != 0:
			return nil, syscall.Errno(r.errno) //nolint:gosec // an errno
		default:
			return r.text[:r.length], nil
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
		call := uintptr(unix.SYS_PWRITE64)
		at := unsafe.Pointer(&s.text.text)
		if s.text.read != 0 {
			call, at = unix.SYS_PREAD64, unsafe.Pointer(&s.reply.text)
		}
		n, _, errno = syscall.RawSyscall6(call, fd, uintptr(at), uintptr(s.text.length), uintptr(s.text.address), 0, 0)
		if errno == 0 && s.text.read == 0 && n != uintptr(s.text.length) {
			errno = unix.EFAULT // only the first page is writable
		}
		syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		s.reply.errno, s.reply.length = int32(errno), 0
		if errno == 0 && s.text.read != 0 {
			s.reply.length = int32(n)
		}
		syscall.RawSyscall(unix.SYS_WRITE, s.theirs, uintptr(unsafe.Pointer(&s.reply)), replyHeader+uintptr(s.reply.length))
	}
}
