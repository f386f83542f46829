// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// annotated passes annotations of pods and containers on to the shim.
const annotated = "pod_annotations = [\"io.containerd.isolate.*\"]\ncontainer_annotations = [\"io.containerd.isolate.*\"]\n"

// annotation is one of isolate's.
func annotation(name, value string) message {
	return message{"annotations": message{"io.containerd.isolate." + name: value}}
}

// TestRefusedPods reads what users of CRI are told, of the pod or of the
// container, and wants nothing left behind.
func TestRefusedPods(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	n := podNode(t, rig.Config{TOML: annotated})
	rig.Configure(t, twoRanges)
	for range 2 {
		n.pod(t, own())
	}
	n.removeAll(t)
	before := rig.MustSnapshot(t)
	absent := filepath.Join(rig.Dir(), "absent")
	for _, c := range []struct {
		name      string
		isolate   string // configuration
		handler   string
		pod       message
		container message // it is what is refused, not the pod
		want      []string
	}{
		{name: "handler", handler: "isolat", want: []string{`no runtime for "isolat" is configured`}},
		{name: "host process namespace", pod: namespaces(message{"pid": 2}), want: []string{"shares the host's pid namespace", "drop the host pid setting", "refused by isolate"}},
		{name: "host ipc namespace", pod: namespaces(message{"pid": 1, "ipc": 2}), want: []string{"shares the host's ipc namespace", "drop the host ipc setting"}},
		{name: "host network", isolate: `foreign_netns = "refuse"`, pod: namespaces(message{"pid": 1, "network": 2}), want: []string{"host's network namespace", `foreign_netns is "refuse"`, "hostUsers: false"}},
		{name: "pod without a mapping", isolate: `foreign_netns = "refuse"`, pod: own(), want: []string{"network namespace", "belongs to another user namespace", `foreign_netns is "refuse"`, "hostUsers: false"}},
		{name: "runtime", isolate: "runtime.binary = \"/nope/runc\"", pod: own(), want: []string{"/nope/runc", "OCI runtime not found"}},
		{name: "configuration", isolate: "nesting = \"some\"", pod: own(), want: []string{"/etc/isolate/config.toml:", "nesting", `"full" or "off"`}},
		{name: "annotation that is not allowed", pod: merge(own(), annotation("nesting", "off")), want: []string{"io.containerd.isolate.nesting", "annotations.allow"}},
		{name: "annotation that is unknown", isolate: `annotations.allow = ["nesting"]`, pod: merge(own(), annotation("nestling", "off")), want: []string{"io.containerd.isolate.nestling"}},
		{name: "annotation with a wrong value", isolate: `annotations.allow = ["nesting"]`, pod: merge(own(), annotation("nesting", "some")), want: []string{"io.containerd.isolate.nesting", "some"}},
		{name: "annotation of a container", container: annotation("nesting", "off"), want: []string{"io.containerd.isolate.nesting", "annotations.allow"}},
		{name: "volume that vanished", container: message{"mounts": []message{{"host_path": absent, "container_path": "/volume"}}}, want: []string{absent, "no such file"}},
		{name: "user outside the ids", container: security(own(), message{"run_as_user": message{"value": 70000}}), want: []string{"user 70000 is outside the container's id range", "ids.size"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.isolate != "" {
				rig.Configure(t, c.isolate+"\n"+twoRanges)
			}
			if c.container != nil {
				p := n.pod(t, own())
				ctr, r := p.tryContainer(t, merge(security(own(), message{}), c.container))
				r.Must(t)
				if err := os.RemoveAll(absent); err != nil {
					t.Fatal(err)
				}
				refused(t, n.try("start", ctr.id), c.want...)
				p.remove(t)
			} else {
				h := c.handler
				if h == "" {
					h = handler
				}
				_, r := n.tryPod(t, h, merge(message{}, c.pod))
				refused(t, r, c.want...)
			}
			n.removeAll(t)
			rig.MustMatch(t, before)
		})
	}
}

// TestRangesExhausted proves that a host that has given all its ids away says so,
// and gives those of a pod that has gone to the next.
func TestRangesExhausted(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	n := podNode(t, rig.Config{})
	rig.Configure(t, "ids.pool = [\"1900281856-1900347391\"]\n")
	p := n.pod(t, own())
	p.container(t, security(own(), message{})) // joins
	_, r := n.tryPod(t, handler, own())
	refused(t, r, "no free range of 65536 ids in 1900281856-1900347391", "1 of 1 ranges", "ids.pool")
	// The caller's own mapping takes none.
	n.pod(t, mapped(300000))
	p.remove(t)
	n.pod(t, own())
}

// TestAnnotations proves that annotations arrive if containerd is told to pass
// them on: a pod's with each of its containers, a container's with itself.
func TestAnnotations(t *testing.T) {
	for name, passed := range map[string]bool{"passed on": true, "not passed on": false} {
		t.Run(name, func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE)
			config := rig.Config{}
			if passed {
				config.TOML = annotated
			}
			n := podNode(t, config)
			rig.Configure(t, "annotations.allow = [\"nesting\", \"lxcfs\"]\n")
			const script = "test -e /dev/fuse && echo nesting; grep -q lxcfs /proc/mounts && echo lxcfs; true"
			see := func(c *container) string { return strings.Join(strings.Fields(c.sh(t, script)), " ") }
			p := n.pod(t, own())
			if got := see(p.container(t, security(own(), message{}))); got != "nesting lxcfs" {
				t.Errorf("without annotations: %q", got)
			}
			want := map[bool]string{true: "nesting", false: "nesting lxcfs"}[passed]
			if got := see(p.container(t, merge(security(own(), message{}), annotation("lxcfs", "off")))); got != want {
				t.Errorf("annotation of a container: %q, want %q", got, want)
			}
			want = map[bool]string{true: "lxcfs", false: "nesting lxcfs"}[passed]
			p = n.pod(t, merge(own(), annotation("nesting", "off")))
			if got := see(p.container(t, security(own(), message{}))); got != want {
				t.Errorf("annotation of a pod: %q, want %q", got, want)
			}
		})
	}
}

// TestHostNetwork proves that a pod on the host's network runs, uses it, and can
// neither administer it nor change its sysctls.
func TestHostNetwork(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE)
			n := podNode(t, rig.Config{Runc: runtime})
			mark := n.Mark(t)
			config := namespaces(message{"pid": 1, "network": 2})
			c := n.pod(t, config).container(t, security(config, message{"privileged": false}))
			if got := c.sh(t, "ip -o link | grep -c ': node0:'"); got != "1" {
				t.Errorf("container sees %q", got)
			}
			for _, script := range []string{"ip link add d0 type bridge", "echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind", "mount -o remount,rw,bind /sys"} {
				if r := c.try(script); r.Code == 0 {
					t.Errorf("in container: %s: done", script)
				}
			}
			if w := n.Warnings(t, mark); len(w) != 1 || !strings.Contains(w[0], "uses the host's network namespace") {
				t.Errorf("warnings: %q", w)
			}
		})
	}
}

// TestSharedProcessNamespace proves that containers of a pod may see each other's
// processes, and what lxcfs makes of it: the limits that it shows are those of
// the first process there, which is the sandbox's and has none.
func TestSharedProcessNamespace(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	n := podNode(t, rig.Config{})
	config := namespaces(message{"pid": 0})
	p := n.pod(t, config)
	p.container(t, merge(security(config, message{}), message{"command": []string{"sleep", "4321"}}))
	c := p.container(t, merge(security(config, message{}), message{"linux": message{"resources": message{"memory_limit_in_bytes": 64 << 20}}}))
	if got := c.sh(t, "pgrep -f '^sleep 4321' | wc -l; kill $(pgrep -f '^sleep 4321') && echo killed"); got != "1\nkilled" {
		t.Errorf("container sees %q of the other", got)
	}
	if got := c.sh(t, "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true"); got != "67108864" {
		t.Errorf("limit is %q", got)
	}
	host := strings.Fields(rig.Exec(t.Context(), "grep", "MemTotal", "/proc/meminfo").Must(t))
	if got := strings.Fields(c.sh(t, "grep MemTotal /proc/meminfo")); got[1] != host[1] {
		t.Errorf("container sees %s KiB of memory: lxcfs has got better, and docs/containerd.md can say so", got[1])
	}
}
