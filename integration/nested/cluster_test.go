// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestCluster runs a whole Kubernetes inside one container: a control plane and
// its only node.
func TestCluster(t *testing.T) {
	rig.Require(t, rig.Long)
	each(t, both, func(t *testing.T, n *node) {
		host := hostSysctls(t)
		c := startCluster(t, n)
		k := "KUBECONFIG=/etc/kubernetes/kubeconfig kubectl "
		c.awaitLong(t, k+"wait --for=condition=Ready node/inner --timeout=10s", k+"get nodes -o yaml; "+k+"get events -A")
		c.sh(t, k+"apply -f /etc/kubernetes/app.yaml")
		c.awaitLong(t, k+"wait --for=condition=Available deployment/web --timeout=10s", k+"get pods -o wide; "+k+"get events -A; "+k+"describe pods")

		c.expect(t, "1000", k+"exec deployment/web -- id -u")
		c.expect(t, "65536 kB", k+"exec deployment/web -- "+total)
		c.expect(t, "started", k+"logs deployment/web --tail=1")
		// The service, from the node, from a pod, and from outside.
		const page = "served by the inner image"
		c.await(t, "busybox wget -T 2 -qO- http://"+firstIP+"/")
		c.expect(t, page, "busybox wget -qO- http://"+firstIP+"/")
		c.expect(t, page, k+"exec deployment/web -- wget -qO- http://"+firstIP+"/")
		if got := get(t, fmt.Sprintf("http://%s:%d/", c.address, nodePort)); got != page {
			t.Errorf("port of the node shows %q, want %q", got, page)
		}
		c.expect(t, "yes", k+"exec deployment/web -- test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo yes")
		// A pod that dies is replaced; a deployment grows, and goes.
		c.sh(t, k+"delete pod -l app=web --wait=true && "+k+"scale deployment/web --replicas=3")
		c.awaitLong(t, "test $("+k+"get deployment/web -o jsonpath={.status.readyReplicas}) = 3", k+"get pods")
		c.sh(t, k+"delete -f /etc/kubernetes/app.yaml --wait=true")
		c.awaitLong(t, "test -z \"$("+k+"get pods -o name)\"", k+"get pods")
		c.await(t, "! busybox wget -T 1 -qO- http://"+firstIP+"/")
		c.await(t, "test $(pidof etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy containerd | wc -w) = 7")
		if now := hostSysctls(t); now != host {
			t.Errorf("sysctls of the host were %s and are %s", host, now)
		}
	})
}

// startCluster starts a container with containerd as its first process, and the
// programs of Kubernetes beside it.
func startCluster(t *testing.T, n *node) *container {
	t.Helper()
	dir, flags := kubernetes(t)
	for destination, name := range map[string]peer.Name{"/opt/control-plane": peer.ControlPlane, "/opt/etcd": peer.Etcd} {
		p, err := peer.Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		flags = append(flags, bind(p.Dir, destination, "rbind:ro")...)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "accounts.key", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	put(t, dir, "tokens", "secret,admin,admin,system:masters\n")
	put(t, dir, "kubeconfig", strings.NewReplacer(`server: "%s"`, "server: https://127.0.0.1:6443, insecure-skip-tls-verify: true", "user: {}", "user: {token: secret}").Replace(kubeconfig))
	put(t, dir, "proxy.yaml", fmt.Sprintf(proxyConf, "iptables"))
	put(t, dir, "app.yaml", app)

	c := start(t, n, image.Docker26, append(flags, "--memory-limit", "4294967296"), "containerd", "--config", "/etc/kubernetes/containerd.toml")
	c.importImages(t)
	c.sh(t, "echo 1 >/proc/sys/net/ipv4/ip_forward")
	c.background(t, "/opt/etcd/bin/etcd", "--data-dir", "/var/lib/etcd", "--unsafe-no-fsync")
	const accounts, with = "/etc/kubernetes/accounts.key", "--kubeconfig=/etc/kubernetes/kubeconfig"
	c.background(t, "/opt/control-plane/bin/kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--cert-dir=/run/apiserver",
		"--advertise-address="+c.address, "--service-cluster-ip-range=10.96.0.0/16", "--token-auth-file=/etc/kubernetes/tokens",
		"--authorization-mode=RBAC", "--kubelet-preferred-address-types=InternalIP", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+accounts, "--service-account-signing-key-file="+accounts)
	c.awaitLong(t, "KUBECONFIG=/etc/kubernetes/kubeconfig kubectl get --raw /readyz", "ps axf")
	c.background(t, "/opt/control-plane/bin/kube-controller-manager", with, "--leader-elect=false",
		"--service-account-private-key-file="+accounts, "--root-ca-file=/run/apiserver/apiserver.crt")
	c.background(t, "/opt/control-plane/bin/kube-scheduler", with, "--leader-elect=false")
	c.background(t, "kubelet", "--config", "/etc/kubernetes/kubelet.yaml", with, "--hostname-override=inner", "--node-ip="+c.address)
	c.background(t, "kube-proxy", "--config", "/etc/kubernetes/proxy.yaml")
	return c
}

const app = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {runAsUser: 1000}
      containers:
      - name: web
        image: docker.io/local/inner:1
        imagePullPolicy: Never
        command: [sh, -c, "echo started; exec httpd -f -p 8000 -h /www"]
        resources: {limits: {memory: 64Mi}}
        ports: [{containerPort: 8000}]
        readinessProbe: {httpGet: {path: /, port: 8000}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  clusterIP: ` + firstIP + `
  selector: {app: web}
  ports: [{port: 80, targetPort: 8000, nodePort: 30080}]
`
