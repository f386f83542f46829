// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"os"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// restricted is a namespace of the strictest Pod Security level.
const restricted = `
apiVersion: v1
kind: Namespace
metadata:
  name: tenants
  labels: {pod-security.kubernetes.io/enforce: restricted}
---
`

// TestDockerAsks runs Docker in the pod of docs/kubernetes.md, which asks for the
// administration of its network, and for nothing else.
func TestDockerAsks(t *testing.T) {
	c := on(t)
	if err := c.load(t.Context(), image.Docker26); err != nil {
		t.Fatal(err)
	}
	leavesNothing(t)
	t.Run("pod", func(t *testing.T) {
		i, err := image.Get(t.Context(), image.Inner)
		if err != nil {
			t.Fatal(err)
		}
		c.apply(t, strings.ReplaceAll(documentedPod(t, "SYS_ADMIN, NET_ADMIN"), "IMAGE", "docker.io/local/docker:26.1"))
		c.must(t, "wait", "--for=condition=Ready", "--timeout=100s", "pod/docker")
		c.await(t, "overlay2", "exec", "docker", "--", "docker", "info", "-f", "{{.Driver}}")
		c.must(t, "cp", i.Path, "docker:/inner.tar")
		c.must(t, "exec", "docker", "--", "docker", "load", "-i", "/inner.tar")
		c.expect(t, "served by the inner image", "exec", "docker", "--", "sh", "-c", serves)
		c.must(t, "delete", "pod", "docker", "--timeout=50s")
	})
}

// serves has one inner container ask another one over Docker's network.
const serves = "docker run -d --name web docker.io/local/inner:1 httpd -f -h /www >/dev/null && docker run --rm docker.io/local/inner:1 wget -qO- http://$(docker inspect -f '{{.NetworkSettings.IPAddress}}' web)/"

// documentedPod is the one pod of docs/kubernetes.md with some text in it.
func documentedPod(t *testing.T, part string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, after := range strings.Split(string(text), "<<'EOF'\n")[1:] {
		if pod, _, _ := strings.Cut(after, "\nEOF\n"); strings.Contains(pod, part) {
			found = append(found, pod+"\n")
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d pods with %q in the documentation", len(found), part)
	}
	return found[0]
}

// TestDocker runs Docker in a pod that the level "restricted" accepts: root in it
// is allowed, because it is not root on the node, and what the pod gives up
// (capabilities, privilege escalation, a wider seccomp profile) the shim gives
// back within the pod's user namespace, if the administrator lets the containers
// of a pod share that.
func TestDocker(t *testing.T) {
	c := on(t)
	rig.Configure(t, "pods = \"shared\"\n")
	if err := c.load(t.Context(), image.Docker26); err != nil {
		t.Fatal(err)
	}
	leavesNothing(t)
	t.Run("pod", func(t *testing.T) {
		i, err := image.Get(t.Context(), image.Inner)
		if err != nil {
			t.Fatal(err)
		}
		c.apply(t, restricted+`
apiVersion: v1
kind: Pod
metadata: {name: docker, namespace: tenants}
spec:
  runtimeClassName: isolate
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 5
  securityContext:
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: docker
      image: docker.io/local/docker:26.1
      command: [dockerd]
      securityContext:
        allowPrivilegeEscalation: false
        capabilities: {drop: [ALL]}
      readinessProbe: {exec: {command: [docker, version]}, periodSeconds: 1}
      resources: {limits: {memory: 1Gi}}
`)
		in := func(want string, argv ...string) {
			t.Helper()
			c.expect(t, want, append([]string{"-n", "tenants", "exec", "docker", "--"}, argv...)...)
		}
		c.must(t, "-n", "tenants", "wait", "--for=condition=Ready", "--timeout=100s", "pod/docker")
		in("overlay2", "docker", "info", "-f", "{{.Driver}}")
		c.must(t, "-n", "tenants", "cp", i.Path, "docker:/inner.tar")
		c.must(t, "-n", "tenants", "exec", "docker", "--", "docker", "load", "-i", "/inner.tar")
		in("second", "docker", "run", "--rm", "docker.io/local/inner:1", "cat", "/layer")
		// An inner container has a network, and its own limit.
		in("served by the inner image", "sh", "-c", serves)
		in("262144 kB", "docker", "run", "--rm", "-m", "256m", "docker.io/local/inner:1", "sed", "-n", "s/MemTotal: *//p", "/proc/meminfo")
		in("1048576 kB", "sed", "-n", "s/MemTotal: *//p", "/proc/meminfo")
		// The image of the installer is built as its Containerfile says.
		built, err := rig.Built(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.must(t, "-n", "tenants", "exec", "docker", "--", "mkdir", "-p", "/src/bin", "/src/deploy")
		for from, to := range map[string]string{
			"../../deploy/Containerfile": "/src/deploy/", built["isolatectl"]: "/src/bin/", built["containerd-shim-isolate-v1"]: "/src/bin/",
		} {
			c.must(t, "-n", "tenants", "cp", from, "docker:"+to)
		}
		c.must(t, "-n", "tenants", "exec", "docker", "--", "sh", "-c", "cd /src && chmod 755 bin/* && DOCKER_BUILDKIT=0 docker build -f deploy/Containerfile --target isolate -t isolate .")
		r := c.kubectl(t.Context(), "-n", "tenants", "exec", "docker", "--", "docker", "run", "--rm", "isolate", "--version")
		if r.Err() != nil || !strings.HasPrefix(r.Stdout, "isolatectl version isolate ") {
			t.Errorf("the installer's image says %+v", r)
		}
		// What such a namespace refuses, it refuses here too.
		r = c.kubectl(t.Context(), "-n", "tenants", "run", "privileged", "--image", "x", "--privileged", `--overrides={"spec": {"runtimeClassName": "isolate"}}`)
		if r.Code == 0 {
			t.Error("a privileged pod was accepted")
		}
	})
}

// TestSystemd runs a system in a pod that the level "restricted" accepts, down to
// Docker as one of its services, which wants the pod's network, and stops it as a
// system is stopped.
func TestSystemd(t *testing.T) {
	c := on(t)
	rig.Configure(t, "pods = \"shared\"\n")
	if err := c.load(t.Context(), image.Systemd257); err != nil {
		t.Fatal(err)
	}
	leavesNothing(t)
	t.Run("pod", func(t *testing.T) {
		c.apply(t, restricted+`
apiVersion: v1
kind: Pod
metadata: {name: machine, namespace: tenants}
spec:
  runtimeClassName: isolate
  terminationGracePeriodSeconds: 60
  securityContext:
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: machine
      image: docker.io/local/systemd:257
      command: [/sbin/init]
      securityContext:
        allowPrivilegeEscalation: false
        capabilities: {drop: [ALL]}
`)
		c.must(t, "-n", "tenants", "wait", "--for=condition=Ready", "--timeout=100s", "pod/machine")
		in := []string{"-n", "tenants", "exec", "machine", "--"}
		c.await(t, "running", append(in, "systemctl", "is-system-running", "--wait")...)
		c.expect(t, "overlay2", append(in, "docker", "info", "-f", "{{.Driver}}")...)
		t.Run("install", func(t *testing.T) { c.installBySystemd(t) })
		// Its stop signal is systemd's own, so that it ends in order and in time.
		c.must(t, "-n", "tenants", "delete", "pod", "machine", "--timeout=50s")
	})
}

// installBySystemd installs isolate in the system that runs in the pod, where
// containerd is a service, and its configuration that of a distribution.
func (c *cluster) installBySystemd(t *testing.T) {
	t.Helper()
	built, err := rig.Built(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	newer, err := peer.Get(t.Context(), peer.Containerd24)
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{
		newer.Program("containerd"): "/usr/local/sbin/", built["isolatectl"]: "/root/", built["containerd-shim-isolate-v1"]: "/root/",
	} {
		c.must(t, "-n", "tenants", "cp", from, "machine:"+to)
	}
	in := func(script string) string {
		t.Helper()
		return c.must(t, "-n", "tenants", "exec", "machine", "--", "sh", "-c", script)
	}
	in(`chmod 755 /root/* /usr/local/sbin/containerd && mkdir -p /etc/systemd/system/containerd.service.d &&
		printf '[Service]\nExecStart=\nExecStart=/usr/local/sbin/containerd\n' >/etc/systemd/system/containerd.service.d/newer.conf &&
		systemctl daemon-reload && systemctl restart containerd`)
	before := in("cat /etc/containerd/config.toml")
	for _, test := range []struct{ command, says string }{
		{"install", "knows the handler isolate, with user namespaces"},
		{"uninstall", "does not know the handler isolate any more"},
	} {
		pid := in("systemctl show -P MainPID containerd")
		out := in("/root/isolatectl " + test.command + " --restart systemd")
		if !strings.Contains(out, "by systemd") || !strings.Contains(out, test.says) {
			t.Errorf("%s says %q, want %q", test.command, out, test.says)
		}
		if in("systemctl show -P MainPID containerd") == pid {
			t.Errorf("%s did not restart containerd", test.command)
		}
	}
	if after := in("cat /etc/containerd/config.toml"); after != before {
		t.Errorf("containerd's configuration was %q, is %q", before, after)
	}
	in("test ! -e /usr/local/bin/containerd-shim-isolate-v1 && test ! -e /var/lib/isolate")
}
