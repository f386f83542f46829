// SPDX-License-Identifier: Apache-2.0

package thread

import (
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDisposableThreadSparesChildren: a child that dies with its thread, as OCI
// runtimes do that the shim starts, is not killed because somebody else throws
// threads away.
func TestDisposableThreadSparesChildren(t *testing.T) {
	t.Parallel()
	var children []*exec.Cmd
	for range 8 {
		cmd := exec.Command("sleep", "60")
		cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		// As containerd's reaper: locked while it is started, and no longer.
		runtime.LockOSThread()
		err := cmd.Start()
		runtime.UnlockOSThread()
		if err != nil {
			t.Fatal(err)
		}
		children = append(children, cmd)
	}
	var wait sync.WaitGroup
	for range 64 {
		wait.Go(func() {
			if err := Run(func() error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	time.Sleep(200 * time.Millisecond) // threads end a moment after their work
	for _, cmd := range children {
		// SIGTERM ends those that live; a killed one has ended by SIGKILL.
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Errorf("child %d: %v", cmd.Process.Pid, err)
		}
		if err := cmd.Wait(); err == nil || err.Error() != "signal: terminated" {
			t.Errorf("child %d: %v", cmd.Process.Pid, err)
		}
	}
}
