// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/cmd/isolatectl/check"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// waiter starts a shell under the name of a daemon, which waits until the test
// has ended.
func waiter(t *testing.T, name string, attr *unix.SysProcAttr, args ...string) int {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(bash)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name)
	if err := testprogram.Write(file, string(program)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(file, append([]string{"-c", "read x || true"}, args...)...)
	cmd.SysProcAttr = attr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(stdin.Close(), cmd.Wait()); err != nil {
			t.Error(err)
		}
	})
	return cmd.Process.Pid
}

// TestNoClients has programs that cannot use the shim, which is no fault of the
// host's.
func TestNoClients(t *testing.T) {
	rig.Require(t, rig.Root, rig.Command("bash"))
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "podman"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 65536}}
	rootless := &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	inside := &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWPID, UidMappings: ids, GidMappings: ids}
	for _, name := range []string{"dockerd", "containerd"} {
		rootlessPID, insidePID := waiter(t, name, rootless), waiter(t, name, inside)
		r := check.Run(t.Context(), config(t, ""))
		what := map[string]string{"dockerd": "Docker", "containerd": "containerd"}[name]
		expect(t, r, fmt.Sprintf("%s, process %d", what, rootlessPID), check.Line{Result: check.Note, Reason: "rootless"})
		for _, l := range r.Lines {
			if l.What == fmt.Sprintf("%s, process %d", what, insidePID) {
				t.Errorf("a container's daemon was taken for the host's: %+v", l)
			}
		}
		expect(t, r, "Podman", check.Line{Result: check.Note, Reason: filepath.Join(bin, "podman") + " starts OCI runtimes itself"})
	}
}
