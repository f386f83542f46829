// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/cache"
)

const (
	stageEnv = "ISOLATE_RIG_STAGE"
	workEnv  = "ISOLATE_RIG_DIR"
	groupEnv = "ISOLATE_RIG_CGROUP"

	stageInit   = "init"
	stageInside = "inside"
)

// Main runs a package's tests in a rig and returns the exit code. Where there
// can be no rig, all tests are skipped, with one line that says why;
// ISOLATE_NO_SKIP=1 makes that a failure.
func Main(m *testing.M) int {
	if os.Getenv(stageEnv) == "" {
		if err := available(); err != nil {
			return report(os.Stderr, 0, map[string]int{err.Error() + " (whole package)": 1}, NoSkip())
		}
	}
	return Enter(func() int {
		code := m.Run()
		if outcome := requirements.report(os.Stderr); code == 0 {
			code = outcome
		}
		return code
	})
}

// Enter runs a function inside a rig and returns the exit code.
func Enter(body func() int) int {
	var code int
	var err error
	switch stage := os.Getenv(stageEnv); stage {
	case "":
		code, err = outside()
	case stageInit:
		code, err = first()
	case stageInside:
		if err = settle(); err == nil {
			return body()
		}
	default:
		err = fmt.Errorf("%s is %q, which is no stage", stageEnv, stage)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "rig: %v\n", err)
		return 1
	}
	return code
}

// available tells why there can be no rig here.
func available() error {
	if os.Geteuid() != 0 {
		return errors.New("integration tests need root")
	}
	command := exec.Command("/bin/true")
	command.SysProcAttr = &unix.SysProcAttr{Cloneflags: cloneFlags}
	if err := command.Run(); err != nil {
		return fmt.Errorf("no new namespaces here: %w", err)
	}
	return nil
}

const cloneFlags = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// outside runs the rig and cleans up after it.
func outside() (code int, err error) {
	// The death signal of the rig comes when this thread ends.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := available(); err != nil {
		return 1, err
	}
	work, err := makeWork()
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	removeAbandoned(filepath.Dir(work))
	group := filepath.Base(work)
	if err := makeCgroups(group); err != nil {
		return 1, errors.Join(err, removeCgroups(group))
	}
	defer func() { err = errors.Join(err, removeCgroups(group)) }()
	env, stopServing, err := cache.Serve(ctx, filepath.Join(work, "cache.sock"))
	if err != nil {
		return 1, err
	}
	defer stopServing()
	command, err := again(stageInit, env, workEnv+"="+work, groupEnv+"="+group)
	if err != nil {
		return 1, err
	}
	command.SysProcAttr = &unix.SysProcAttr{Cloneflags: cloneFlags, Pdeathsig: unix.SIGKILL}
	if err := command.Start(); err != nil {
		return 1, fmt.Errorf("start rig: %w", err)
	}
	context.AfterFunc(ctx, func() {
		// At a terminal those inside have got the signal as well.
		time.Sleep(time.Second)
		_ = command.Process.Kill()
	})
	err = command.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// again is this program at another stage.
func again(stage string, env ...string) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	command := exec.Command(program, os.Args[1:]...)
	command.Env = append(os.Environ(), stageEnv+"="+stage)
	command.Env = append(command.Env, env...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return command, nil
}

// first is process 1: it prepares what the namespaces hold, starts the tests and
// ends with them.
func first() (int, error) {
	// Process 1 stays until its child has ended. Unlike ignoring signals,
	// catching them is not inherited.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	if err := errors.Join(prepareMounts(Dir()), prepareNetwork(), joinCgroups(os.Getenv(groupEnv))); err != nil {
		return 1, err
	}
	command, err := again(stageInside, "TMPDIR="+filepath.Join(Dir(), "test"))
	if err != nil {
		return 1, err
	}
	command.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWCGROUP}
	if err := command.Start(); err != nil {
		return 1, fmt.Errorf("start %q: %w", strings.Join(os.Args, " "), err)
	}
	code := 1
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return code, nil //nolint:nilerr // no children are left
		case pid == command.Process.Pid:
			code = status.ExitStatus()
			if status.Signaled() {
				code = 128 + int(status.Signal())
			}
			// ESRCH says that nothing else was running.
			if err := unix.Kill(-1, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return code, fmt.Errorf("kill all processes: %w", err)
			}
		}
	}
}

// Dir is the rig's directory, on a disk. It is removed with the rig.
func Dir() string { return os.Getenv(workEnv) }
