// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"fmt"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// joinedPIDs runs a container in the pid namespace of another, whose root has chosen
// which number comes next: that of a process of the host. crun reports that number
// if it has to make a time namespace as well, for which Docker 29 asks.
func joinedPIDs(t *testing.T, d *daemon) {
	c := d.start(t, nil)
	const few = 12
	var last int
	for range few {
		cmd := exec.Command("sleep", "86397")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last = cmd.Process.Pid
		t.Cleanup(func() {
			var status unix.WaitStatus
			if pid, err := unix.Wait4(cmd.Process.Pid, &status, unix.WNOHANG, nil); pid != 0 || err != nil {
				t.Errorf("a process of the host was killed: %#x, %v", status, err)
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	d.docker(t, "exec", c, "sh", "-c", fmt.Sprintf("echo %d >/proc/sys/kernel/ns_last_pid", last-few/2))
	d.prints(t, "sleep", []string{"--pid", "container:" + c}, "cat /proc/1/comm")
	d.docker(t, "rm", "--force", c)
}
