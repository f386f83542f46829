// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

// TestUninstall removes isolate from the cluster as deploy/uninstall says, first
// while a pod needs it, and puts it back.
func TestUninstall(t *testing.T) {
	c := on(t)
	dir, err := c.overlay("uninstall")
	if err != nil {
		t.Fatal(err)
	}
	system := func(args ...string) []string { return append([]string{"-n", "isolate-system"}, args...) }
	t.Cleanup(func() {
		ctx := context.Background()
		if err := errors.Join(c.deploy(ctx, "install", "isolate"), c.deploy(ctx, "lxcfs", "lxcfs")); err != nil {
			t.Error(err)
		}
	})
	t.Run("in use", func(t *testing.T) {
		c.apply(t, pod("user"))
		c.ready(t, "user")
		c.must(t, "apply", "-k", dir)
		waitFor(t, func() bool {
			r := c.kubectl(t.Context(), system("logs", "daemonset/isolate", "-c", "uninstall")...)
			return strings.Contains(r.Stdout+r.Stderr, "containers of isolate are still there: pod default/user")
		}, func() string { return "the uninstaller names the pod\n" + c.describe() })
		// Nothing new is put there, and what runs is not disturbed.
		c.expect(t, "", "get", "node", nodeName, "-o", `jsonpath={.metadata.labels.isolate-shim\.github\.io/ready}`)
		c.inPod(t, "0", "user", "id -u")
		c.apply(t, pod("later"))
		c.await(t, "Unschedulable", "get", "pod", "later", "-o", `jsonpath={.status.conditions[?(@.type=="PodScheduled")].reason}`)
	})
	c.must(t, system("rollout", "status", "--timeout=100s", "daemonset/isolate")...)
	log := c.must(t, system("logs", "daemonset/isolate", "-c", "uninstall")...)
	if !strings.Contains(log, "does not know the handler isolate any more") {
		t.Errorf("the uninstaller says %q", log)
	}
	for _, path := range []string{binDir, "/etc/containerd/conf.d/isolate.toml", "/var/lib/isolate/install.json"} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	lxcfs, err := c.overlay("lxcfs")
	if err != nil {
		t.Fatal(err)
	}
	c.must(t, "delete", "-k", lxcfs)
	c.must(t, "delete", "-k", dir)
	c.expect(t, "", "get", "runtimeclass/isolate", "mutatingadmissionpolicy/isolate-host-users", "clusterrole/isolate", "namespace/isolate-system", "--ignore-not-found", "-o", "name")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), "fuse.lxcfs") {
		t.Errorf("lxcfs is still mounted, or: %v", err)
	}
}
