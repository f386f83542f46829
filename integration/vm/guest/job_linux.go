// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/isolate-shim/isolate/integration/vm/wire"
)

// Exit codes of shells and of env(1) for commands that could not be run.
const (
	exitCannotRun = 126
	exitNotFound  = 127
	exitSignalled = 128 // plus the signal
)

// outputGrace is how long output of processes that the command has left behind
// is waited for.
const outputGrace = 2 * time.Second

func runJob() error {
	text, err := os.ReadFile(jobPath)
	if err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	var job wire.Job
	if err := json.Unmarshal(text, &job); err != nil {
		return fmt.Errorf("decode job: %w", err)
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	defer port.Close()
	link := &link{port: port}
	code, err := execute(job, link)
	if err != nil {
		return err
	}
	// What was written to shares must be on the host before it hears the end.
	syscall.Sync()
	for _, share := range job.Shares {
		// If it is busy, the sync has to do.
		_ = syscall.Unmount(share.Path, 0)
	}
	return link.send(wire.KindExit, []byte{byte(code)})
}

// execute runs the command. That it cannot be run is told like a shell does.
func execute(job wire.Job, link *link) (int, error) {
	// For the search of the command.
	for _, setting := range job.Env {
		if name, value, _ := strings.Cut(setting, "="); name == "PATH" {
			if err := os.Setenv(name, value); err != nil {
				return 0, fmt.Errorf("set PATH: %w", err)
			}
		}
	}
	command := exec.CommandContext(context.Background(), job.Argv[0], job.Argv[1:]...)
	command.Env, command.Dir = job.Env, job.Dir
	// It gets pipes, which exec makes and copies from. The port itself could not
	// be opened a second time, as /dev/stderr.
	command.Stdout, command.Stderr = link.writer(wire.KindStdout), link.writer(wire.KindStderr)
	command.WaitDelay = outputGrace
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		if err := link.send(wire.KindStderr, fmt.Appendln(nil, "vm:", err)); err != nil {
			return 0, err
		}
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return exitNotFound, nil
		}
		return exitCannotRun, nil
	}
	if err := link.send(wire.KindStarted, nil); err != nil {
		return 0, err
	}
	go link.forwardSignals(command.Process)
	err := command.Wait()
	status, ok := command.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return 0, fmt.Errorf("wait for command: %w", err)
	case status.Signaled():
		return exitSignalled + int(status.Signal()), nil
	default:
		return status.ExitStatus(), nil
	}
}

// link is the port, which several writers share.
type link struct {
	mu   sync.Mutex
	port *os.File
}

func (l *link) send(kind wire.Kind, payload []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return wire.Write(l.port, kind, payload)
}

// forwardSignals sends what the runner has received to the command.
func (l *link) forwardSignals(process *os.Process) {
	for {
		kind, payload, err := wire.Read(l.port)
		if err != nil {
			return
		}
		if kind == wire.KindSignal && len(payload) == 1 {
			// It may have ended already.
			_ = process.Signal(syscall.Signal(payload[0]))
		}
	}
}

func (l *link) writer(kind wire.Kind) io.Writer { return linkWriter{l, kind} }

type linkWriter struct {
	link *link
	kind wire.Kind
}

func (w linkWriter) Write(p []byte) (int, error) {
	for start := 0; start < len(p); start += wire.MaxPayload {
		if err := w.link.send(w.kind, p[start:min(start+wire.MaxPayload, len(p))]); err != nil {
			return start, err
		}
	}
	return len(p), nil
}
