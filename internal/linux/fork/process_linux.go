// SPDX-License-Identifier: Apache-2.0

package fork

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Process is a child.
type Process struct {
	// PID belongs to the child until Wait has returned.
	PID int

	pidfd int
	file  *os.File // the pidfd again: a goroutine waits for it without a thread
}

// Result is how a child has ended.
type Result struct {
	// Status is the exit status, or the signal that has ended the child.
	Status int32
	// Used is the processor time of the child.
	Used time.Duration
}

// PIDFD is valid until Close, End or Leave.
func (p *Process) PIDFD() int { return p.pidfd }

// Path names a file below the child's /proc/PID.
func (p *Process) Path(name string) string { return fmt.Sprintf("/proc/%d/%s", p.PID, name) }

// Kill kills the child. It is no error if the child has ended.
func (p *Process) Kill() error {
	if err := unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	return nil
}

// Wait waits for the end of the child, at most until the deadline, which may be zero for
// none. After the deadline the error is os.ErrDeadlineExceeded. The error is ECHILD if
// another part of this process waits for every child (__WALL); then the child has ended.
func (p *Process) Wait(deadline time.Time) (Result, error) {
	if err := p.file.SetReadDeadline(deadline); err != nil && !deadline.IsZero() {
		return Result{}, err
	}
	conn, err := p.file.SyscallConn()
	if err != nil {
		return Result{}, err
	}
	var waitErr error
	var info unix.Siginfo
	var used unix.Rusage
	err = conn.Read(func(fd uintptr) bool {
		// The pidfd does not block: EAGAIN while the child runs (Linux 5.10).
		waitErr = unix.Waitid(unix.P_PIDFD, int(fd), &info, unix.WEXITED|unix.WALL, &used)
		return !errors.Is(waitErr, unix.EAGAIN) && !errors.Is(waitErr, unix.EINTR)
	})
	if err := errors.Join(err, os.NewSyscallError("waitid", waitErr)); err != nil {
		return Result{}, err
	}
	// si_status follows si_signo, si_errno, si_code (a word of the machine with its
	// padding), si_pid and si_uid (sigaction(2)).
	const status = 8 + unsafe.Sizeof(uintptr(0)) + 8
	return Result{
		Status: *(*int32)(unsafe.Add(unsafe.Pointer(&info), status)),
		Used:   time.Duration(used.Utime.Nano() + used.Stime.Nano()),
	}, nil
}

// Close closes the pidfd of a child that has been waited for.
func (p *Process) Close() error { return p.file.Close() }

// End kills the child and waits until it is gone.
func (p *Process) End() error {
	killErr := p.Kill()
	_, err := p.Wait(time.Time{})
	if errors.Is(err, unix.ECHILD) {
		err = nil
	}
	if err := errors.Join(killErr, err, p.Close()); err != nil {
		return fmt.Errorf("end child %d: %w", p.PID, err)
	}
	return nil
}

// Leave kills the child and does not wait for its end: a child that a server holds up
// ends when the server does. A goroutine, without a thread, takes its exit status.
func (p *Process) Leave() {
	go func() { _ = p.End() }() // nothing else can be done
}
