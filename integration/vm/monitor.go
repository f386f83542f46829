// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/vm/wire"
)

// machine is a running emulator, seen from the host.
type machine struct {
	config  Config
	console *console
	port    net.Conn
	process *os.Process
	exited  chan struct{} // closed when the emulator has ended
	started chan struct{} // closed when the command has
	result  chan result   // one value
	// copied is closed when the console has been read to its end.
	copied chan struct{}
}

type result struct {
	code int
	err  error
}

func start(ctx context.Context, c Config, parts Parts) (_ *machine, err error) {
	content, err := initrd(parts.program, parts.modules)
	if err != nil {
		return nil, err
	}
	memory, err := memoryFile("initrd", content)
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	disk, err := scratch(ctx)
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	port, guestPort, err := connection()
	if err != nil {
		return nil, err
	}
	defer guestPort.Close()
	serial, guestSerial, err := connection()
	if err != nil {
		port.Close()
		return nil, err
	}
	defer guestSerial.Close()
	m := &machine{
		config: c, console: &console{copy: c.Console}, port: port,
		exited: make(chan struct{}), started: make(chan struct{}), result: make(chan result, 1), copied: make(chan struct{}),
	}
	argv := parts.emulator.emulator(machineOptions(c, parts.vmlinux)...)
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Env = parts.emulator.emulatorEnv()
	command.Stdout, command.Stderr = m.console, m.console
	// In the order of the constants fdScratch and so on.
	command.ExtraFiles = []*os.File{disk, memory, guestPort, guestSerial}
	// Its own group, so that a terminal's ^C reaches the command in the guest
	// and not the emulator.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := m.run(command); err != nil {
		return nil, errors.Join(err, port.Close(), serial.Close())
	}
	go func() {
		defer close(m.copied)
		defer serial.Close()
		// It ends with the emulator.
		_, _ = io.Copy(m.console, serial)
	}()
	go m.receive()
	if err := wire.SendJob(port, c.job(parts)); err != nil {
		m.end()
		return nil, fmt.Errorf("%w\n%s", err, m.console.tail())
	}
	return m, nil
}

func (c Config) job(parts Parts) wire.Job {
	job := wire.Job{
		Argv: c.Argv, Env: environment(c.Env), Dir: c.Dir,
		Cgroup: string(c.Cgroup), Systemd: c.Init == InitSystemd,
		Release: parts.release, Modules: parts.modules, Busybox: parts.tools.busybox(),
	}
	for i, path := range c.Shares {
		job.Shares = append(job.Shares, wire.Share{Tag: shareTag(i), Path: path})
	}
	return job
}

// run starts the emulator from a thread that lives as long as it does, since
// the death signal is sent when the parent thread ends.
func (m *machine) run(command *exec.Cmd) error {
	err := make(chan error)
	go func() {
		runtime.LockOSThread()
		startErr := command.Start()
		m.process = command.Process
		err <- startErr
		if startErr == nil {
			// What it returns says no more than the console does.
			_ = command.Wait()
			close(m.exited)
		}
	}()
	return <-err
}

// connection is a pair of connected sockets: our end, and the emulator's.
func connection() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make sockets: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "guest")
	file := os.NewFile(uintptr(fds[0]), "host")
	defer file.Close()
	ours, err := net.FileConn(file)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make sockets: %w", err)
	}
	return ours, theirs, nil
}

// receive takes what the guest sends, until it ends.
func (m *machine) receive() {
	reader := bufio.NewReader(m.port)
	for {
		kind, payload, err := wire.Read(reader)
		if err != nil {
			m.result <- result{err: errDied}
			return
		}
		switch {
		case kind == wire.KindStarted:
			close(m.started)
		case kind == wire.KindStdout:
			_, err = m.config.Stdout.Write(payload)
		case kind == wire.KindStderr:
			_, err = m.config.Stderr.Write(payload)
		case kind == wire.KindExit && len(payload) == 1:
			m.result <- result{code: int(payload[0])}
			return
		case kind == wire.KindFailed:
			m.result <- result{err: fmt.Errorf("%w: %s", errDied, payload)}
			return
		default:
			err = fmt.Errorf("got frame of kind %d with %d bytes", kind, len(payload))
		}
		if err != nil {
			m.result <- result{err: fmt.Errorf("pass on output of the command: %w", err)}
			return
		}
	}
}

// wait returns when the command has ended, or cannot any more.
func (m *machine) wait(ctx context.Context) (int, error) {
	boot := time.NewTimer(bootLimit)
	defer boot.Stop()
	var timeout, grace <-chan time.Time
	if m.config.Timeout > 0 {
		timer := time.NewTimer(m.config.Timeout)
		defer timer.Stop()
		timeout = timer.C
	}
	started := m.started
	var ending error // why the command is being ended
	for {
		select {
		case r := <-m.result:
			if ending != nil {
				return r.code, ending
			}
			if r.err != nil {
				return 0, m.explain(r.err)
			}
			return r.code, nil
		case <-started:
			started = nil
			boot.Stop()
		case <-boot.C:
			return 0, m.explain(fmt.Errorf("%w: the command was not started within %s", errDied, bootLimit))
		case <-timeout:
			ending = fmt.Errorf("%w after %s", errTimeout, m.config.Timeout)
			// Go programs tell what they were doing.
			if grace = m.signal(unix.SIGQUIT); grace == nil {
				return 0, m.explain(ending)
			}
		case s := <-m.config.Signals:
			number, ok := s.(syscall.Signal)
			if !ok {
				continue
			}
			if after := m.signal(number); after == nil {
				return 0, fmt.Errorf("%w by signal %q before the command ran", errInterrupted, s)
			} else if grace == nil {
				grace = after
			}
		case <-grace:
			if ending == nil {
				ending = fmt.Errorf("%w: it did not end within %s after a signal", errInterrupted, signalGrace)
			}
			return 0, ending
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: %w", errInterrupted, context.Cause(ctx))
		}
	}
}

// signal sends a signal to the command and returns when to be patient no more,
// or nil if the command does not run yet.
func (m *machine) signal(number syscall.Signal) <-chan time.Time {
	select {
	case <-m.started:
	default:
		return nil
	}
	// In vain if the guest is gone: the grace will tell.
	_ = m.port.SetWriteDeadline(time.Now().Add(time.Second))
	_ = wire.Write(m.port, wire.KindSignal, []byte{byte(number)})
	return time.After(signalGrace)
}

// explain adds what the guest printed last.
func (m *machine) explain(err error) error {
	m.kill()
	return fmt.Errorf("%w; last lines of its console:\n%s", err, m.console.tail())
}

func (m *machine) kill() {
	// It may have ended by itself.
	_ = m.process.Kill()
	<-m.exited
	<-m.copied
}

func (m *machine) end() {
	m.kill()
	m.port.Close()
}
