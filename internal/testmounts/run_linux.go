// SPDX-License-Identifier: Apache-2.0

// Package testmounts gives the tests of a package a mount namespace of their own.
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

// inside marks the process that has the namespace.
const inside = "ISOLATE_TEST_MOUNTS"

// Run runs the tests and returns their exit code, for TestMain. Those of root run
// again in a mount namespace, so that nothing they mount is left behind, however they
// end. Fuzzing workers do not: they talk over inherited descriptors, and mount nothing.
func Run(m *testing.M) int {
	fuzzing := strings.Contains(strings.Join(os.Args, " "), "-test.fuzz")
	if os.Geteuid() != 0 || os.Getenv(inside) != "" || fuzzing {
		return m.Run()
	}
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, "start tests in a mount namespace:", err)
		return 1
	}
	return 0
}
