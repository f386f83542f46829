// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// rigEnv marks the test process that has a mount namespace of its own.
const rigEnv = "ISOLATE_TEST_RIG"

// TestMain gives the tests of root a mount namespace, so that nothing they mount is
// left behind, however they end.
func TestMain(m *testing.M) {
	// Fuzzing workers talk over inherited descriptors, and mount nothing.
	fuzzing := strings.Contains(strings.Join(os.Args, " "), "-test.fuzz")
	if os.Geteuid() != 0 || os.Getenv(rigEnv) != "" || fuzzing {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), rigEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "start tests in a mount namespace:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
