// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNoAnswer means that a file system did not answer in time.
var ErrNoAnswer = errors.New("its file system does not answer")

// Ask opens a path as open_tree(2) does, following links and triggering automounts,
// and makes its file system give a sign of life. When the context ends before, the
// answer is [ErrNoAnswer] with the reason. It costs a fork, about a millisecond.
func Ask(ctx context.Context, path string) (_ *os.File, retErr error) {
	fail := func(err error) error { return fmt.Errorf("look up %q: %w", path, err) }
	if len(path) >= unix.PathMax {
		return nil, fail(unix.ENAMETOOLONG)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fail(os.NewSyscallError("socketpair", err))
	}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		return nil, errors.Join(fail(err), unix.Close(pair[0]), unix.Close(pair[1]))
	}
	ours := os.NewFile(uintptr(pair[0]), "look-up")
	defer ours.Close()

	// The child dies with the thread that has made it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	a := newAsker(path, pair[1])
	forked, err := withoutSignals(a.fork)
	err = errors.Join(err, unix.Close(pair[1]))
	if forked {
		defer leave(int(a.pidfd))
	}
	if err != nil {
		return nil, fail(err)
	}
	stop := context.AfterFunc(ctx, func() { ours.SetReadDeadline(time.Unix(1, 0)) }) //nolint:errcheck // of a socket it can be set
	defer stop()
	f, err := receive(ours, path)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, fail(fmt.Errorf("%w: %w", ErrNoAnswer, context.Cause(ctx)))
	}
	if err != nil {
		return nil, fail(err)
	}
	return f, nil
}

// receive takes the answer of the child.
func receive(socket *os.File, path string) (f *os.File, retErr error) {
	conn, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	data, rights := make([]byte, unsafe.Sizeof(answer{})), make([]byte, unix.CmsgSpace(4))
	var n, rn int
	err = conn.Read(func(fd uintptr) bool {
		n, rn, _, _, retErr = unix.Recvmsg(int(fd), data, rights, unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(retErr, unix.EAGAIN) && !errors.Is(retErr, unix.EINTR)
	})
	switch {
	case err != nil:
		return nil, err
	case retErr != nil:
		return nil, os.NewSyscallError("recvmsg", retErr)
	case n != len(data):
		return nil, errors.New("the process that looks it up has ended")
	}
	said := *(*answer)(unsafe.Pointer(&data[0]))
	if rn > 0 {
		messages, err := unix.ParseSocketControlMessage(rights[:rn])
		if err != nil {
			return nil, err
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			return nil, err
		}
		f = os.NewFile(uintptr(fds[0]), path)
	}
	// Who may not ask, such as root where FUSE is somebody else's, does not wait.
	if err := syscall.Errno(said.errno); err != 0 && (f == nil || err != unix.EACCES) { //nolint:gosec // an errno
		if f != nil {
			f.Close() //nolint:errcheck // O_PATH
		}
		return nil, err
	}
	return f, nil
}

// leave ends the child. One that a server holds up goes when that ends; a goroutine
// is there to take its exit status, and no thread.
func leave(pidfd int) {
	unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) //nolint:errcheck // ESRCH: it has ended
	gone := func(options int) bool {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WALL|options, nil)
		return err == nil && info.Signo != 0 || errors.Is(err, unix.ECHILD)
	}
	unix.SetNonblock(pidfd, true) //nolint:errcheck // then the goroutine below has a thread
	f := os.NewFile(uintptr(pidfd), "pidfd")
	if gone(unix.WNOHANG) {
		f.Close() //nolint:errcheck // nothing is written to it
		return
	}
	go func() {
		defer f.Close() //nolint:errcheck // nothing is written to it
		if conn, err := f.SyscallConn(); err == nil {
			conn.Read(func(uintptr) bool { return gone(unix.WNOHANG) }) //nolint:errcheck // closed by nobody else
		}
	}()
}

// withoutSignals calls a function that forks, with all signals blocked in the
// thread, which must be locked: their handlers are Go's.
func withoutSignals(fork func() (uintptr, syscall.Errno)) (forked bool, _ error) {
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return false, fmt.Errorf("block signals: %w", err)
	}
	_, errno := fork()
	err := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	if errno != 0 {
		return false, errors.Join(os.NewSyscallError("clone3", errno), err)
	}
	return true, err
}
