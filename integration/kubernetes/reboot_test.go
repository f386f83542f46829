// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/rig"
)

// TestReboot takes everything from the node that a reboot takes: containerd, the
// kubelet, every shim and container, all their mounts, and /run. Pods come back,
// with what they had on volumes.
func TestReboot(t *testing.T) {
	c := on(t)
	host := hostDir(t)
	c.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: survivor}
spec:
  runtimeClassName: isolate
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: local/debian:demo
      command: [sh, -c, "echo start >>/kept/starts; chown 1000 /kept/starts; exec sleep 86400"]
      volumeMounts: [{name: kept, mountPath: /kept}, {name: empty, mountPath: /empty}]
  volumes:
    - {name: kept, hostPath: {path: `+host+`}}
    - {name: empty, emptyDir: {}}
`)
	// Without the policy: its ids come from the shim's pool, whose state is in /run.
	c.apply(t, pod("own", "hostUsers: true"))
	c.ready(t, "survivor", "own")
	c.must(t, "exec", "survivor", "--", "sh", "-c", "echo kept >/empty/file && chown 7:8 /empty/file")
	if err := c.reboot(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"survivor", "own"} {
		c.await(t, "1 true", "get", "pod", name, "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
	}
	c.inPod(t, "start start 1000", "survivor", "echo $(cat /kept/starts) $(stat -c %u /kept/starts)")
	c.inPod(t, "kept 7:8", "survivor", "echo $(cat /empty/file) $(stat -c %u:%g /empty/file)")
	c.inPod(t, "0 65536", "own", uidMap)
	c.await(t, "1", "-n", "isolate-system", "get", "daemonset", "isolate", "-o", "jsonpath={.status.numberReady}")
	c.await(t, "1", "-n", "isolate-system", "get", "daemonset", "lxcfs", "-o", "jsonpath={.status.numberReady}")
}

// reboot does to the node what a reboot does, but for the control plane, which is
// on another machine.
func (c *cluster) reboot(ctx context.Context) error {
	c.kubeletProcess.kill()
	if err := c.stopSupervising(); err != nil {
		return err
	}
	if err := c.node.Kill(); err != nil {
		return err
	}
	spare := map[int]bool{os.Getpid(): true, 1: true}
	for _, p := range c.programs {
		spare[p.cmd.Process.Pid] = true
	}
	if err := killOthers(spare); err != nil {
		return err
	}
	// A shell does not get its teeth into a dead FUSE server: the mounts go by
	// their names, the last one first.
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(mounts)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		point := strings.Fields(lines[i])[4]
		if strings.HasPrefix(point, "/run/") || strings.HasPrefix(point, rig.Dir()+"/") || strings.HasPrefix(point, "/var/lib/isolate/") {
			_ = unix.Unmount(point, unix.MNT_DETACH) // it may have gone with another
		}
	}
	entries, err := os.ReadDir("/run")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join("/run", e.Name())); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(c.node.State); err != nil { // of containerd, in /run on a host
		return err
	}
	if err := rig.Exec(ctx, "ip", "link", "delete", "cni0").Err(); err != nil {
		return err
	}
	if err := c.node.Start(ctx); err != nil {
		return err
	}
	c.stopSupervising = c.node.Supervise(ctx)
	return c.startKubelet(ctx)
}

// killOthers kills all processes of the rig but those, and waits for their end.
func killOthers(spare map[int]bool) error {
	var failed error
	ended := rig.Within(patience, func() bool {
		left := 0
		entries, err := os.ReadDir("/proc")
		failed = err
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil || spare[pid] {
				continue
			}
			if line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")); err != nil || len(line) == 0 {
				continue // a zombie, or gone
			}
			left++
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
		}
		return left == 0
	})
	if !ended {
		return os.ErrDeadlineExceeded
	}
	return failed
}
