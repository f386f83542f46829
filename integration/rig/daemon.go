// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// daemon is a program that runs in the background until it is stopped.
type daemon struct {
	command *exec.Cmd
	done    chan struct{} // closed when it has ended
	log     string
}

// startDaemon starts a program with its output appended to a file.
func startDaemon(log string, env []string, argv ...string) (*daemon, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer file.Close()
	command := exec.Command(argv[0], argv[1:]...)
	command.Env = append(os.Environ(), "TMPDIR="+filepath.Join(Dir(), "tmp"))
	command.Env = append(command.Env, env...)
	command.Stdout, command.Stderr = file, file
	command.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %q: %w", argv[0], err)
	}
	d := &daemon{command: command, done: make(chan struct{}), log: log}
	go func() {
		// How it ended is in its log.
		_ = command.Wait()
		close(d.done)
	}()
	return d, nil
}

// signal sends a signal; that the process is gone already is no error.
func (d *daemon) signal(s os.Signal) error {
	if err := d.command.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %q: %w", d.command.Path, err)
	}
	return nil
}

// stop sends a signal and waits for the end, which is enforced after a while.
func (d *daemon) stop(s os.Signal) error {
	if err := d.signal(s); err != nil {
		return err
	}
	select {
	case <-d.done:
		return nil
	case <-time.After(Patiently(patience)):
	}
	err := d.signal(unix.SIGKILL)
	<-d.done
	return errors.Join(err, fmt.Errorf("stop %q: still there after %s, killed it", d.command.Path, Patiently(patience)))
}

// await waits until a condition holds, and fails early when the program ends.
func (d *daemon) await(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, Patiently(30*time.Second))
	defer cancel()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-d.done:
			return fmt.Errorf("%q has ended:\n%s", d.command.Path, logTail(d.log))
		case <-ctx.Done():
			return fmt.Errorf("%q is not ready (%w):\n%s", d.command.Path, err, logTail(d.log))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func logTail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}
