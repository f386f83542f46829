// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ErrEnded says that a process has ended: no thread of it is left.
var ErrEnded = errors.New("process has ended")

// ID names a process for as long as the machine runs. It is written to files.
type ID struct {
	PID int `json:"pid"`
	// Start is the start time in clock ticks since boot.
	Start uint64 `json:"start"`
}

// Process is a process that cannot be mistaken for a later one with its pid.
type Process struct {
	id ID
	fd *os.File
}

// Open holds the process that has this pid now. It must not have ended.
func Open(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	// ENOENT, and EINVAL from older kernels: no leader of a thread group.
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("process %d: %w", pid, ErrEnded)
	}
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, os.NewSyscallError("pidfd_open", err))
	}
	p := &Process{id: ID{PID: pid}, fd: os.NewFile(uintptr(fd), "pidfd:"+strconv.Itoa(pid))}
	content, err := p.Read("stat")
	if err == nil {
		var s Stat
		s, err = ParseStat(content)
		p.id.Start = s.Start
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Open holds the process if it still runs; else the error is [ErrEnded].
func (id ID) Open() (*Process, error) {
	p, err := Open(id.PID)
	if err != nil {
		return nil, err
	}
	if p.id != id {
		return nil, errors.Join(fmt.Errorf("process %d: %w", id.PID, ErrEnded), p.Close())
	}
	return p, nil
}

// Alive tells whether a thread of the process is left. The state of the first thread does
// not tell: it is a zombie while others live.
func (id ID) Alive() (bool, error) {
	p, err := id.Open()
	if errors.Is(err, ErrEnded) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, p.Close()
}

// Ending tells whether the process has ended or is about to: each of its threads is on
// its way out, as far as one look can tell. The first one of a pid namespace may be for
// long: until those in it that others have to reap are reaped (pid_namespaces(7)).
func (id ID) Ending() (bool, error) {
	p, err := id.Open()
	if errors.Is(err, ErrEnded) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer p.Close()
	threads, err := os.ReadDir(p.Path("task"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for _, thread := range threads {
		content, err := os.ReadFile(p.Path("task/" + thread.Name() + "/stat"))
		if err != nil {
			continue // it has ended
		}
		if s, err := ParseStat(content); err != nil || !s.Exiting {
			return false, err
		}
	}
	return true, nil
}

// ID returns the name of the process for files.
func (p *Process) ID() ID { return p.id }

// PID returns the pid, for messages, and for paths below /proc if [Process.Ended] is
// asked after their use.
func (p *Process) PID() int { return p.id.PID }

// Dup opens the process a second time; its caller closes it.
func (p *Process) Dup() (*Process, error) {
	fd, err := unix.FcntlInt(p.fd.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	runtime.KeepAlive(p)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", p.id.PID, os.NewSyscallError("fcntl", err))
	}
	return &Process{id: p.id, fd: os.NewFile(uintptr(fd), p.fd.Name())}, nil
}

// Close closes the pidfd.
func (p *Process) Close() error { return p.fd.Close() }

// FD returns the pidfd, valid until Close.
func (p *Process) FD() int { return int(p.fd.Fd()) }

// Path returns the path of a file below /proc/PID. What is read there belongs to the
// process only if the process has not ended after that.
func (p *Process) Path(name string) string { return "/proc/" + strconv.Itoa(p.id.PID) + "/" + name }

// Read reads a file below /proc/PID.
func (p *Process) Read(name string) ([]byte, error) {
	content, err := os.ReadFile(p.Path(name))
	if ended, waitErr := p.Ended(0); waitErr != nil || ended || errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) && ended {
		return nil, errors.Join(fmt.Errorf("process %d: %w", p.id.PID, ErrEnded), waitErr)
	}
	return content, err
}

// Namespace opens a namespace of the process: "user", "mnt", "pid" and so on
// (namespaces(7)).
func (p *Process) Namespace(kind string) (*os.File, error) {
	ns, err := os.Open(p.Path("ns/" + kind))
	ended, waitErr := p.Ended(0)
	if err == nil && !ended && waitErr == nil {
		return ns, nil
	}
	if err == nil {
		waitErr = errors.Join(waitErr, ns.Close())
	}
	if ended {
		return nil, errors.Join(fmt.Errorf("process %d: %w", p.id.PID, ErrEnded), waitErr)
	}
	return nil, errors.Join(err, waitErr)
}

// Signal sends a signal (pidfd_send_signal(2)). The error is [ErrEnded] if the process
// has ended.
func (p *Process) Signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(p.FD(), sig, nil, 0)
	runtime.KeepAlive(p)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process %d: %w", p.id.PID, ErrEnded)
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}

// Ended waits, at most that long, until no thread of the process is left, and tells
// whether that is so. With a negative time it waits without limit.
func (p *Process) Ended(wait time.Duration) (bool, error) {
	deadline := time.Now().Add(wait)
	for {
		ms := -1
		if wait >= 0 {
			ms = int(max(0, time.Until(deadline).Milliseconds()))
		}
		fds := []unix.PollFd{{Fd: int32(p.FD()), Events: unix.POLLIN}} //nolint:gosec // a descriptor
		n, err := unix.Poll(fds, ms)
		runtime.KeepAlive(p)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return n > 0, os.NewSyscallError("poll", err)
	}
}
