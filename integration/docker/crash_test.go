// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/rig"
)

// shimOf is the process of a container's shim.
func (d *daemon) shimOf(t *testing.T, name string) int {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + d.pid(t, name) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	// The parent is the second field after the name, which is in parentheses.
	_, after, _ := strings.Cut(string(stat), ") ")
	shim, err := strconv.Atoi(strings.Fields(after)[1])
	if err != nil {
		t.Fatal(err)
	}
	if exe, err := os.Readlink("/proc/" + strconv.Itoa(shim) + "/exe"); err != nil || !strings.HasSuffix(exe, "containerd-shim-isolate-v1") {
		t.Fatalf("parent of the container is %s (%v)", exe, err)
	}
	return shim
}

func shimKilled(t *testing.T, d *daemon) {
	c := d.start(t, nil)
	d.in(t, c, "echo kept >/kept && chown 1000 /kept")
	if err := unix.Kill(d.shimOf(t, c), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "dockerd sees that the container has ended", func() bool { return d.inspect(t, c, "{{.State.Running}}") == "false" })
	// dockerd is through with the old one when it can start it again.
	rig.Eventually(t, "start after the shim was killed", func() bool { return d.Run(t.Context(), "start", c).Code == 0 })
	d.expect(t, "kept 1000", c, "echo $(cat /kept) $(stat -c %u /kept)")
	// rm -f of a running one, of one whose shim is dead, and of a first process
	// that was killed from outside.
	if err := unix.Kill(d.shimOf(t, c), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.docker(t, "rm", "--force", c)
	c = d.start(t, nil)
	pid, err := strconv.Atoi(d.pid(t, c))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := d.docker(t, "wait", c); got != "137" {
		t.Errorf("wait says %s", got)
	}
	d.docker(t, "rm", "--force", c)
}

// dockerdKilled needs live-restore.
func dockerdKilled(t *testing.T, d *daemon) {
	stays, dies := d.start(t, []string{"-p", "127.0.0.1:18090:80"}, serve...), d.start(t, nil)
	d.in(t, stays, "echo kept >/kept")
	for _, stop := range []struct {
		name string
		how  func() error
	}{{"killed", d.Kill}, {"stopped", d.Stop}} {
		pid := d.pid(t, stays)
		victim, err := strconv.Atoi(d.pid(t, dies))
		if err != nil {
			t.Fatal(err)
		}
		if err := stop.how(); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(victim, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := d.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := d.pid(t, stays); got != pid {
			t.Errorf("%s: the container's process was %s and is %s", stop.name, pid, got)
		}
		d.expect(t, "kept", stays, "cat /kept")
		if got := get(t, "http://127.0.0.1:18090/"); got != page {
			t.Errorf("%s: published port shows %q", stop.name, got)
		}
		rig.Eventually(t, "dockerd sees that the other one has ended", func() bool { return d.inspect(t, dies, "{{.State.Running}}") == "false" })
		d.docker(t, "start", dies)
	}
	d.docker(t, "restart", "-t", "0", stays)
	d.expect(t, "kept", stays, "cat /kept")
}
