// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
)

// Inside the shim a signal handler reaps every child before exec.Cmd can. The
// handler takes the children of the whole process, so it runs in one of its own.
func TestInspectUnderAReaper(t *testing.T) {
	t.Parallel()
	const role = "ISOLATE_TEST_REAPER"
	if os.Getenv(role) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInspectUnderAReaper$", "-test.v")
		cmd.Env = append(os.Environ(), role+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	// Not on SIGCHLD as the shim's, which mostly comes too late: always first
	// in the queue, so that the bad case is the common one.
	var reaped atomic.Int64
	go func() {
		for {
			if pid, err := syscall.Wait4(-1, nil, 0, nil); err == nil && pid > 0 {
				reaped.Add(1)
			}
		}
	}()
	dir := t.TempDir()
	path := recorded(t, dir, "runc", "runc-1.5.0")
	for range 50 {
		b, err := ask(t.Context(), path)
		if err != nil || b.Version != "1.5.0" || b.Features == nil {
			t.Fatalf("%+v %v", b, err)
		}
		old, err := ask(t.Context(), recorded(t, dir, "crun", "crun-1.8.1"))
		if err != nil || old.Version != "1.8.1" || old.Features != nil {
			t.Fatalf("%+v %v", old, err)
		}
	}
	if reaped.Load() == 0 {
		t.Error("the reaper got no child: the test shows nothing")
	}
}
