// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
)

const (
	services  = "/api/v1/services"
	sliced    = "/apis/discovery.k8s.io/v1/endpointslices"
	apiNodes  = "/api/v1/nodes"
	nodePort  = 30080
	firstIP   = "10.96.0.50"
	secondIP  = "10.96.0.51"
	proxyConf = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
hostnameOverride: inner
mode: %s
clientConnection: {kubeconfig: /etc/kubernetes/kubeconfig, contentType: application/json}
iptables: {minSyncPeriod: 0s}
nftables: {minSyncPeriod: 0s}
`
	kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s"}}]
users: [{name: u, user: {}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
`
)

// TestKubeProxy runs a stock kube-proxy inside a container, in both modes, and
// uses the services that it programs.
func TestKubeProxy(t *testing.T) {
	each(t, both, func(t *testing.T, n *node) {
		for _, mode := range []string{"iptables", "nftables"} {
			t.Run(mode, func(t *testing.T) { proxy(t, n, mode) })
		}
	})
}

func proxy(t *testing.T, n *node, mode string) {
	host, api := hostSysctls(t), startAPIServer(t)
	dir, flags := kubernetes(t)
	put(t, dir, "kubeconfig", fmt.Sprintf(kubeconfig, api.address))
	put(t, dir, "proxy.yaml", fmt.Sprintf(proxyConf, mode))
	c := start(t, n, image.Docker26, append(flags, "--memory-limit", memoryLimit), "sleep", "infinity")
	c.sh(t, "echo 1 >/proc/sys/net/ipv4/ip_forward") // as on every node
	api.put(apiNodes, "", "inner", object{"status": object{"addresses": []object{{"type": "InternalIP", "address": c.address}}}})
	api.service(t, "first", firstIP, nodePort)

	c.background(t, "kube-proxy", "--config", "/etc/kubernetes/proxy.yaml")
	pid := c.sh(t, "for i in $(seq 600); do "+oldest("kube-proxy")+" | grep . && exit; sleep 0.1; done; exit 1")
	c.await(t, "busybox wget -qO- http://127.0.0.1:10256/healthz")
	// The page tells its reader's address: the packet was sent to a service.
	c.await(t, "busybox wget -T 1 -qO- http://"+firstIP+"/")
	c.expect(t, c.address, "busybox wget -qO- http://"+firstIP+"/")
	// From outside, a service answers on a port of the node, which shows itself.
	if got := get(t, fmt.Sprintf("http://%s:%d/", c.address, nodePort)); got != c.address {
		t.Errorf("port of the node shows %q, want %q", got, c.address)
	}
	// Changes are followed.
	api.service(t, "second", secondIP, 0)
	c.await(t, "busybox wget -T 1 -qO- http://"+secondIP+"/")
	api.take(sliced, "default", "first")
	c.await(t, "! busybox wget -T 1 -qO- http://"+firstIP+"/")
	c.expect(t, c.address, "busybox wget -qO- http://"+secondIP+"/")
	programmed := map[string]string{"iptables": "iptables-save -t nat", "nftables": "nft list ruleset"}[mode]
	c.expect(t, "programmed", programmed+" | grep -q "+secondIP+" && echo programmed")

	// It insists on a size of the table of connections, which is the host's; the
	// rest is its own network namespace's.
	c.expect(t, "131072", "cat /proc/sys/net/netfilter/nf_conntrack_max")
	c.expect(t, "86400", "cat /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established")
	if now := hostSysctls(t); now != host {
		t.Errorf("sysctls of the host were %s and are %s", host, now)
	}
	c.expect(t, "ok", "busybox wget -qO- http://127.0.0.1:10256/healthz >/dev/null && echo ok")
	c.expect(t, pid, oldest("kube-proxy"))
}

// service is one whose endpoint is a page on the node; with a node port unless
// that is 0.
func (a *apiServer) service(t *testing.T, name, ip string, nodePort int) {
	t.Helper()
	page, err := url.Parse(peers(t))
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(page.Port())
	if err != nil {
		t.Fatal(err)
	}
	kind, servicePort := "ClusterIP", object{"name": "http", "protocol": "TCP", "port": 80, "targetPort": port}
	if nodePort > 0 {
		kind, servicePort["nodePort"] = "NodePort", nodePort
	}
	a.put(services, "default", name, object{"spec": object{
		"type": kind, "clusterIP": ip, "clusterIPs": []string{ip}, "ipFamilies": []string{"IPv4"}, "ipFamilyPolicy": "SingleStack",
		"internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "ports": []object{servicePort},
	}})
	a.put(sliced, "default", name, object{
		"metadata":    object{"labels": object{"kubernetes.io/service-name": name}},
		"addressType": "IPv4", "ports": []object{{"name": "http", "protocol": "TCP", "port": port}},
		"endpoints": []object{{"addresses": []string{strings.Split(page.Host, ":")[0]}, "conditions": object{"ready": true, "serving": true}, "nodeName": "elsewhere"}},
	})
}
