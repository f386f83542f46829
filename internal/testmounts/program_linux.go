// SPDX-License-Identifier: Apache-2.0

package testmounts

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
)

// Env is the variable by which a copy of this process runs a program of [Main]
// instead of tests.
func Env(name string) string { return program + "=" + name }

// Program prepares a child that runs one of the programs of [Main], as root of a user namespace
// if m has a range.
func Program(tb testing.TB, m idmap.Mapping, name string, args ...string) *exec.Cmd {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), Env(name))
	cmd.Stderr = &bytes.Buffer{}
	// No Pdeathsig: the thread that starts it may be thrown away soon.
	cmd.SysProcAttr = &unix.SysProcAttr{}
	if len(m.UIDs) > 0 {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS
		cmd.SysProcAttr.UidMappings = sysMap(m.UIDs)
		cmd.SysProcAttr.GidMappings = sysMap(m.GIDs)
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
		cmd.SysProcAttr.Credential = &syscall.Credential{}
	}
	return cmd
}

// RunProgram runs one to its end.
func RunProgram(tb testing.TB, cmd *exec.Cmd) {
	tb.Helper()
	if err := cmd.Run(); err != nil {
		tb.Fatalf("%v: %v\n%s", cmd.Args, err, cmd.Stderr)
	}
}

// Start starts a program that says when it runs, waits until it does, and returns its
// pid.
func Start(tb testing.TB, cmd *exec.Cmd) int {
	tb.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { Stop(cmd) })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		tb.Fatalf("%v: %s", err, cmd.Stderr)
	}
	return cmd.Process.Pid
}

// Stop kills a child and waits for it.
func Stop(cmd *exec.Cmd) {
	cmd.Process.Kill() //nolint:errcheck // it may have ended
	cmd.Wait()         //nolint:errcheck // it was killed
}

// Sit is a program that says that it runs and waits to be killed.
func Sit([]string) error {
	fmt.Println("running")
	for {
		time.Sleep(time.Hour)
	}
}

func sysMap(ranges []idmap.Range) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, r := range ranges {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(r.Container), HostID: int(r.Host), Size: int(r.Size)})
	}
	return out
}
