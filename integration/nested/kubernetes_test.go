// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
)

// kubernetes returns the flags that give a container the programs of Kubernetes
// in /usr/local/bin, network plugins, images, and /etc/kubernetes, the directory
// that comes back with them.
func kubernetes(t *testing.T) (dir string, flags []string) {
	t.Helper()
	dir = t.TempDir()
	for destination, name := range map[string]peer.Name{"/usr/local/bin": peer.Kubelet, "/opt/cni/bin": peer.CNI} {
		p, err := peer.Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		flags = append(flags, bind(filepath.Join(p.Dir, "bin"), destination, "rbind:ro")...)
	}
	pause, err := image.Get(t.Context(), image.Pause)
	if err != nil {
		t.Fatal(err)
	}
	flags = slices.Concat(flags, inner(t), bind(pause.Path, "/pause.tar", "rbind:ro"), bind(dir, "/etc/kubernetes", "rbind:rw"))
	put(t, dir, "containerd.toml", containerdConfig)
	put(t, dir, "net.d/10-bridge.conflist", networkConfig)
	put(t, dir, "kubelet.yaml", kubeletConfig)
	return dir, flags
}

// containerdConfig is of the inner containerd, of Debian. No process in a
// container may have a smaller oom_score_adj than its first one.
const containerdConfig = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "` + image.PauseReference + `"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/kubernetes/net.d"
`

const networkConfig = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [
	{"type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
		"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
	{"type": "portmap", "capabilities": {"portMappings": true}}
]}
`

// kubeletConfig names no feature gate. Kubernetes 1.36 has to be told that it may
// run on cgroup v1.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
staticPodPath: /etc/kubernetes/manifests
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
readOnlyPort: 10255
clusterDNS: [10.96.0.10]
syncFrequency: 2s
fileCheckFrequency: 1s
`

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// background runs a program in the container until the test ends. What it prints
// is shown if the test fails.
func (c *container) background(t *testing.T, argv ...string) {
	t.Helper()
	name := filepath.Base(argv[0])
	output := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(output, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c.node.Ctr(t.Context(), slices.Concat([]string{"tasks", "exec", "--detach", "--log-uri", "file://" + output, "--exec-id", fmt.Sprintf("e%d", execs.Add(1)), c.id}, argv)...).Must(t)
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(output)
			t.Logf("%s printed:\n%s", name, text[max(0, len(text)-6000):])
		}
	})
}

// importImages gives the pods' images to the inner containerd.
func (c *container) importImages(t *testing.T) {
	t.Helper()
	c.await(t, "ctr version")
	for _, path := range []string{"/pause.tar", "/inner.tar"} {
		c.sh(t, "ctr -n k8s.io images import "+path)
	}
}

// insisted are the sysctls that programs of Kubernetes insist on setting, and
// what they set them to.
var insisted = map[string]string{
	"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

// TestKubelet runs a stock kubelet inside a container, without an API server:
// its pods are files. It takes its time then, 10 s for each look at a pod, so
// those of all runtimes run at the same time.
func TestKubelet(t *testing.T) {
	host := hostSysctls(t)
	for i, n := range onAll(t, both) {
		dir, flags := kubernetes(t)
		c := start(t, n, image.Docker26, append(flags, "--memory-limit", "2147483648"), "containerd", "--config", "/etc/kubernetes/containerd.toml")
		t.Run(string(both[i]), func(t *testing.T) {
			t.Parallel()
			kubelet(t, c, dir)
			if now := hostSysctls(t); now != host {
				t.Errorf("sysctls of the host were %s and are %s", host, now)
			}
		})
	}
}

func kubelet(t *testing.T, c *container, dir string) {
	c.importImages(t)
	put(t, dir, "manifests/web.yaml", webPod)
	c.background(t, "kubelet", "--config", "/etc/kubernetes/kubelet.yaml", "--hostname-override", "inner")
	pid := c.sh(t, "for i in $(seq 600); do "+oldest("kubelet")+" | grep . && exit; sleep 0.1; done; exit 1")
	c.awaitPod(t, "web", `"ready":true`)
	c.expect(t, "0", "stat -fc %T /var/lib/kubelet | grep -c overlay; true")
	for name, want := range insisted {
		c.expect(t, want, "cat /proc/sys/"+name)
		c.sh(t, "echo "+want+" >/proc/sys/"+name) // also those that it found right
	}
	// What the pod sees, through a port of the node.
	for page, want := range map[string]string{"memory": "65536 kB", "user": "1000", "shared": "by init", "tmpfs": "tmpfs"} {
		if got := get(t, "http://"+c.address+":8080/"+page); got != want {
			t.Errorf("the pod's page %s is %q, want %q", page, got, want)
		}
	}
	// A program that ends is started again; a pod that is added is run; one that is
	// taken away ends.
	c.sh(t, "kill -KILL $(pidof httpd)") // process 1 of its namespace heeds nothing less
	put(t, dir, "manifests/second.yaml", strings.NewReplacer("name: web", "name: second", "8080", "8081").Replace(webPod))
	c.awaitPod(t, "web", `"restartCount":1`, `"ready":true`)
	c.awaitPod(t, "second", `"ready":true`)
	if err := os.Remove(filepath.Join(dir, "manifests/web.yaml")); err != nil {
		t.Fatal(err)
	}
	c.awaitLong(t, "test $(ctr -n k8s.io tasks ls -q | wc -l) = 2", podStatus("web"))
	if got, want := get(t, "http://"+c.address+":8081/user"), "1000"; got != want {
		t.Errorf("the other pod's page is %q, want %q", got, want)
	}
	c.expect(t, pid, oldest("kubelet"))
}

// oldest is a command that prints the first process of a name. What it starts has the same
// name for a moment.
func oldest(name string) string { return "pidof " + name + " | tr ' ' '\\n' | sort -n | head -n 1" }

// webPod is a pod with most of what a kubelet has to do for one.
const webPod = `apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 1000, runAsNonRoot: true, fsGroup: 2000}
  volumes:
  - {name: www, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  initContainers:
  - name: init
    image: docker.io/local/inner:1
    imagePullPolicy: Never
    command: [sh, -c, "echo by init >/www/shared"]
    volumeMounts: [{name: www, mountPath: /www}]
  containers:
  - name: web
    image: docker.io/local/inner:1
    imagePullPolicy: Never
    command: [sh, -c, "sed -n 's/MemTotal: *//p' /proc/meminfo >/www/memory; id -u >/www/user; stat -fc %T /memory >/www/tmpfs; exec httpd -f -p 8000 -h /www"]
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    ports: [{containerPort: 8000, hostPort: 8080}]
    volumeMounts: [{name: www, mountPath: /www}, {name: memory, mountPath: /memory}]
    readinessProbe: {httpGet: {path: /shared, port: 8000}, periodSeconds: 1}
    livenessProbe: {exec: {command: [test, -s, /www/user]}, periodSeconds: 2}
`

// podStatus is a command that prints what the kubelet says about a static pod,
// and fails if there is none.
func podStatus(name string) string {
	return "busybox wget -qO- http://127.0.0.1:10255/pods | sed 's/{\"metadata\"/\\n&/g' | grep '\"name\":\"" + name + "-inner\"'"
}

func (c *container) awaitPod(t *testing.T, name string, wants ...string) {
	t.Helper()
	script := "p=$(" + podStatus(name) + "); echo \"$p\" >/tmp/pod"
	for _, want := range wants {
		script += " && echo \"$p\" | grep -q '" + want + "'"
	}
	c.awaitLong(t, script, "cat /tmp/pod; ctr -n k8s.io tasks ls")
}
