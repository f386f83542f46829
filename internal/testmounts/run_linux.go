// SPDX-License-Identifier: Apache-2.0

// Package testmounts gives the tests of a package namespaces of their own, and what
// tests that mount need.
package testmounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	// inside marks the process that has the namespaces.
	inside = "ISOLATE_TEST_MOUNTS"
	// program names the function that a child of a test runs instead of tests.
	program = "ISOLATE_TEST_PROGRAM"
)

// Run runs the tests and returns their exit code, for TestMain. Those of root run
// again in a mount namespace, so that nothing they mount is left behind, however they
// end. Fuzzing workers do not: they talk over inherited descriptors, and mount nothing.
func Run(m *testing.M) int { return run(m, 0) }

// Main is [Run] for tests that also start processes: root's run in a pid namespace,
// too. programs are what children of a test run instead of tests, by name; see
// [Program].
func Main(m *testing.M, programs map[string]func(args []string) error) int {
	if name := os.Getenv(program); name != "" {
		if err := programs[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if os.Getenv(inside) != "" {
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			fmt.Fprintln(os.Stderr, "mount proc:", err)
			return 1
		}
	}
	return run(m, unix.CLONE_NEWPID)
}

// RunCgroup2 is [Run] in a mount namespace that shows version 2 of cgroups in any case,
// as hosts with version 1 need not.
func RunCgroup2(m *testing.M) int {
	if os.Getenv(inside) != "" {
		dir, err := os.MkdirTemp("", "cgroup2")
		if err == nil {
			defer os.Remove(dir)
			err = unix.Mount("cgroup2", dir, "cgroup2", 0, "")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "mount cgroup2 for tests:", err)
			return 1
		}
		defer unix.Unmount(dir, unix.MNT_DETACH) //nolint:errcheck // it goes with the namespace
	}
	return run(m, 0)
}

func run(m *testing.M, namespaces uintptr) int {
	fuzzing := strings.Contains(strings.Join(os.Args, " "), "-test.fuzz")
	if os.Geteuid() != 0 || os.Getenv(inside) != "" || fuzzing {
		return m.Run()
	}
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags:   namespaces,
		Unshareflags: unix.CLONE_NEWNS, // makes the mounts private, too
		Pdeathsig:    unix.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, "start tests in namespaces of their own:", err)
		return 1
	}
	return 0
}
