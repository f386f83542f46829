// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

const (
	nodeName = "node1"
	nodeIP   = "10.88.70.1" // of the rig
	// serviceIP is that of the service "kubernetes". The API server listens on it
	// itself, so that no proxy is needed.
	serviceIP = "10.96.0.1"

	// patience bounds how long a test waits for what is to happen.
	patience = 2 * time.Minute
)

// cluster is a Kubernetes with one node.
type cluster struct {
	node *rig.Node
	dir  string

	kubelet, control, etcd peer.Peer
	kubeletProcess         *program
	programs               []*program // of the control plane
	stopSupervising        func() error
}

var shared *cluster

// on returns the cluster, and starts it for the first test.
func on(t *testing.T) *cluster {
	t.Helper()
	rig.Require(t, rig.Root, rig.FUSE)
	if shared == nil {
		c := &cluster{dir: filepath.Join(rig.Dir(), "k8s")}
		if err := c.start(context.Background()); err != nil {
			t.Fatal(err)
		}
		shared = c
	}
	return shared
}

func (c *cluster) start(ctx context.Context) error {
	var errs [4]error
	var plugins peer.Peer
	c.kubelet, errs[0] = peer.Get(ctx, peer.Kubelet)
	c.control, errs[1] = peer.Get(ctx, peer.ControlPlane)
	c.etcd, errs[2] = peer.Get(ctx, peer.Etcd)
	plugins, errs[3] = peer.Get(ctx, peer.CNI)
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
		return err
	}
	if err := c.startControlPlane(ctx); err != nil {
		return err
	}
	var err error
	c.node, err = rig.StartContainerd(ctx, rig.Config{
		CRI: true, Main: dropIns,
		TOML: fmt.Sprintf("[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = [%q]\n", filepath.Join(plugins.Dir, "bin")),
	})
	if err != nil {
		return err
	}
	c.stopSupervising = c.node.Supervise(ctx)
	for _, name := range []image.Name{image.Pause, image.Demo, image.Inner} {
		if err := c.load(ctx, name); err != nil {
			return err
		}
	}
	if err := c.startKubelet(ctx); err != nil {
		return err
	}
	err = c.kubeletProcess.await("no default service account", func() error { return c.kubectl(ctx, "get", "serviceaccount", "default").Err() })
	if err != nil {
		return err
	}
	if err := c.loadOwnImages(ctx); err != nil {
		return err
	}
	return errors.Join(c.deploy(ctx, "install", "isolate"), c.deploy(ctx, "lxcfs", "lxcfs"))
}

// dropIns makes containerd import the directory of drop-ins besides what the rig
// has it import, as a file made by containerd itself does.
func dropIns(main string) string {
	return strings.Replace(main, "imports = [", `imports = ["/etc/containerd/conf.d/*.toml", `, 1)
}

// network is what a network add-on puts on a node.
const network = `{"cniVersion": "1.0.0", "name": "rig", "plugins": [
	{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": {
		"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "10.88.71.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}`

func (c *cluster) prepare() error {
	// The kubelet links the logs of containers there, on the machine's disk.
	if err := unix.Mount("tmpfs", "/var/log", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /var/log: %w", err)
	}
	if err := rig.Exec(context.Background(), "ip", "address", "add", serviceIP+"/32", "dev", "lo").Err(); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(c.dir, 0o755), os.MkdirAll("/etc/cni/net.d", 0o755), os.MkdirAll("/etc/containerd/conf.d", 0o755)); err != nil {
		return err
	}
	kubeconfig := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "rig",
		"clusters": [{"name": "rig", "cluster": {"server": "https://%s", "certificate-authority": %q}}],
		"users": [{"name": "admin", "user": {"token": "admin"}}],
		"contexts": [{"name": "rig", "context": {"cluster": "rig", "user": "admin"}}]}`, net.JoinHostPort(serviceIP, "443"), c.file("ca.crt"))
	settings := fmt.Sprintf(`{"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"clusterDNS": ["10.96.0.10"], "clusterDomain": "cluster.local",
		"address": %q, "containerRuntimeEndpoint": "unix://%s", "podLogsDir": %q,
		"cgroupDriver": "cgroupfs", "failCgroupV1": false, "enforceNodeAllocatable": [], "oomScoreAdj": 0,
		"localStorageCapacityIsolation": false, "resolvConf": "", "makeIPTablesUtilChains": false,
		"authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}}, "authorization": {"mode": "AlwaysAllow"},
		"evictionHard": {"memory.available": "20Mi", "nodefs.available": "1%%", "nodefs.inodesFree": "1%%", "imagefs.available": "1%%"}}`,
		nodeIP, filepath.Join(rig.Dir(), "n1", "c.sock"), c.file("pods"))
	return errors.Join(
		makePKI(c.dir),
		os.WriteFile("/etc/cni/net.d/10-rig.conflist", []byte(network), 0o644),
		os.WriteFile(c.file("tokens"), []byte("admin,admin,1,system:masters\n"), 0o600),
		os.WriteFile(c.file("kubeconfig"), []byte(kubeconfig), 0o600),
		os.WriteFile(c.file("kubelet.json"), []byte(settings), 0o600),
	)
}

func (c *cluster) file(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) startControlPlane(ctx context.Context) error {
	const store = "http://127.0.0.1:2379"
	run := func(path string, args ...string) (*program, error) {
		p, err := startProgram(c.dir, path, args...)
		if err == nil {
			c.programs = append(c.programs, p)
		}
		return p, err
	}
	if _, err := run(c.etcd.Program("etcd"), "--data-dir", c.file("etcd"), "--unsafe-no-fsync", "--logger", "zap",
		"--listen-client-urls", store, "--advertise-client-urls", store, "--listen-peer-urls", "http://127.0.0.1:2380"); err != nil {
		return err
	}
	server, err := run(c.control.Program("kube-apiserver"), "--etcd-servers", store,
		"--bind-address", "0.0.0.0", "--secure-port", "443", "--advertise-address", nodeIP, "--service-cluster-ip-range", "10.96.0.0/16",
		"--tls-cert-file", c.file("server.crt"), "--tls-private-key-file", c.file("server.key"), "--token-auth-file", c.file("tokens"),
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", c.file("sa.key"), "--service-account-signing-key-file", c.file("sa.key"),
		"--authorization-mode", "Node,RBAC", "--allow-privileged", "--kubelet-preferred-address-types", "InternalIP")
	if err != nil {
		return err
	}
	if err := server.await("not ready", func() error { return c.kubectl(ctx, "get", "--raw", "/readyz").Err() }); err != nil {
		return err
	}
	_, err1 := run(c.control.Program("kube-controller-manager"), "--kubeconfig", c.file("kubeconfig"), "--leader-elect=false",
		"--root-ca-file", c.file("ca.crt"), "--service-account-private-key-file", c.file("sa.key"), "--secure-port", "0")
	_, err2 := run(c.control.Program("kube-scheduler"), "--kubeconfig", c.file("kubeconfig"), "--leader-elect=false", "--secure-port", "0")
	return errors.Join(err1, err2)
}

// kubeletSysctls are those that the kubelet sets when it starts. They are not
// those of a namespace.
var kubeletSysctls = []string{"vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops"}

// startKubelet starts the kubelet and returns when the node is ready.
func (c *cluster) startKubelet(ctx context.Context) (err error) {
	for _, name := range kubeletSysctls {
		file := filepath.Join("/proc/sys", name)
		value, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.WriteFile(file, value, 0o644)) }()
	}
	c.kubeletProcess, err = startProgram(c.dir, c.kubelet.Program("kubelet"), "--config", c.file("kubelet.json"), "--kubeconfig", c.file("kubeconfig"),
		"--root-dir", c.file("kubelet"), "--cert-dir", c.file("kubelet-pki"), "--hostname-override", nodeName, "--node-ip", nodeIP)
	if err != nil {
		return err
	}
	return c.kubeletProcess.await("node not ready", func() error {
		r := c.kubectl(ctx, "get", "node", nodeName, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		if r.Err() == nil && r.Stdout != "True" {
			return fmt.Errorf("Ready is %q", r.Stdout)
		}
		return r.Err()
	})
}

// load imports an image under the name by which pods ask for it.
func (c *cluster) load(ctx context.Context, name image.Name) error {
	reference, err := c.node.ImportInto(ctx, "k8s.io", name)
	if err != nil {
		return err
	}
	return c.tag(ctx, reference)
}

func (c *cluster) tag(ctx context.Context, reference string) error {
	full := reference
	switch parts := strings.Split(reference, "/"); {
	case len(parts) == 1:
		full = "docker.io/library/" + reference
	case !strings.ContainsAny(parts[0], ".:"):
		full = "docker.io/" + reference
	}
	if full == reference {
		return nil
	}
	return c.node.Ctr(ctx, "--namespace", "k8s.io", "images", "tag", reference, full).Err()
}
