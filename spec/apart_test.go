// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestApart: containers that share namespaces are apart unless they ask for what
// they share, and have every capability only where they are alone.
func TestApart(t *testing.T) {
	t.Parallel()
	type namespaces = []specs.LinuxNamespace
	const user, pid, net, ipc = specs.UserNamespace, specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace
	own := namespaces{{Type: pid}, {Type: net, Path: "/proc/7/ns/net"}, {Type: ipc, Path: "/proc/7/ns/ipc"}}
	sharedPID := namespaces{{Type: pid, Path: "/proc/7/ns/pid"}, own[1], own[2]}
	queues := namespaces{{Type: pid}, own[1], {Type: ipc}}
	with := func(list namespaces, path string) namespaces {
		return append(namespaces{{Type: user, Path: path}}, list...)
	}
	pod, other := &Sandbox{Pod: true, Network: NetworkOwned}, &Sandbox{Network: NetworkOwned}
	sandboxes := map[specs.LinuxNamespaceType]Owner{user: OwnerSandbox, pid: OwnerSandbox, net: OwnerSandbox, ipc: OwnerSandbox}
	peers := map[specs.LinuxNamespaceType]Owner{user: OwnerSandbox, pid: OwnerOther, net: OwnerSandbox, ipc: OwnerSandbox}
	elsewhere := map[specs.LinuxNamespaceType]Owner{user: OwnerOther, net: OwnerSandbox, ipc: OwnerSandbox}
	hosts := map[specs.LinuxNamespaceType]Owner{user: OwnerSandbox, net: OwnerHost, ipc: OwnerSandbox}

	apart := Decision{Mode: ModeJoin, Apart: true, Network: NetworkForeign, ForeignIPC: true}
	inPod := Decision{Mode: ModeJoin, AsAsked: true, Network: NetworkOwned}
	whole := Decision{Mode: ModeJoin, Network: NetworkOwned}
	adopting := func(d Decision) Decision { d.Mode = ModeAdopt; return d }
	beside := Decision{Mode: ModeJoin, Peer: true, Network: NetworkForeign, ForeignIPC: true}

	for _, test := range []struct {
		name       string
		namespaces namespaces
		caps       []string
		facts      Facts
		shared     bool
		oneUserns  bool
		want       Decision
	}{
		{name: "of a pod", namespaces: own, facts: Facts{Sandbox: pod, Joined: sandboxes}, want: apart},
		{name: "capabilities of a default", namespaces: own, caps: []string{"CAP_NET_RAW", "CAP_CHOWN"}, facts: Facts{Sandbox: pod, Joined: sandboxes}, want: apart},
		{name: "no setting", namespaces: own, facts: Facts{Sandbox: pod, Joined: sandboxes}, shared: true, want: whole},
		{name: "pod that Kubernetes mapped", namespaces: with(own, "/proc/7/ns/user"), facts: Facts{Sandbox: pod, Joined: sandboxes}, want: adopting(apart)},
		{name: "a user namespace of the caller's choice", namespaces: with(own, "/proc/9/ns/user"), facts: Facts{Sandbox: pod, Joined: elsewhere}, want: adopting(whole)},
		{name: "a mapping of the caller's choice", namespaces: with(own, ""), facts: Facts{Sandbox: pod, Joined: elsewhere}, want: adopting(whole)},
		{name: "the sandbox", namespaces: own, facts: Facts{Joined: map[specs.LinuxNamespaceType]Owner{net: OwnerHost}}, want: Decision{Mode: ModeOwn, Network: NetworkForeign}},
		{name: "administers the network", namespaces: own, caps: []string{"CAP_NET_ADMIN"}, facts: Facts{Sandbox: pod, Joined: sandboxes}, want: inPod},
		{name: "administers everything", namespaces: own, caps: []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"}, facts: Facts{Sandbox: pod, Joined: sandboxes}, want: whole},
		{name: "shares processes", namespaces: sharedPID, facts: Facts{Sandbox: pod, Joined: sandboxes}, want: inPod},
		{name: "shares processes and administers", namespaces: sharedPID, caps: []string{"CAP_SYS_ADMIN"}, facts: Facts{Sandbox: pod, Joined: sandboxes}, want: whole},
		{name: "debugs a container", namespaces: sharedPID, facts: Facts{Sandbox: pod, Peer: other, Joined: peers}, want: beside},
		{name: "debugs a container as root of all", namespaces: with(sharedPID, "/proc/7/ns/user"), caps: []string{"CAP_SYS_ADMIN"}, facts: Facts{Sandbox: pod, Peer: other, Joined: peers}, want: adopting(beside)},
		{name: "network of a container", namespaces: queues, facts: Facts{Sandbox: other, Joined: sandboxes}, want: Decision{Mode: ModeJoin, Apart: true, Network: NetworkForeign}},
		{name: "administers that of a container", namespaces: queues, caps: []string{"CAP_NET_ADMIN"}, facts: Facts{Sandbox: other, Joined: sandboxes}, want: whole},
		{name: "processes of a container", namespaces: sharedPID, facts: Facts{Sandbox: other, Joined: sandboxes}, want: whole},
		{name: "runc before 1.3", namespaces: own, facts: Facts{Sandbox: pod, Joined: sandboxes}, oneUserns: true, want: inPod},
		{name: "runc before 1.3, network of a container", namespaces: queues, facts: Facts{Sandbox: other, Joined: sandboxes}, oneUserns: true, want: inPod},
		{name: "pod on a network of the host's", namespaces: own, facts: Facts{Sandbox: &Sandbox{Pod: true, Network: NetworkForeign}, Joined: hosts}, want: apart},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ids := []specs.LinuxIDMapping{{HostID: 65536, Size: 65536}}
			s := &specs.Spec{
				Linux:   &specs.Linux{Namespaces: test.namespaces, UIDMappings: ids, GIDMappings: ids},
				Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: test.caps}},
			}
			got, err := Decide(s, test.facts, Policy{Apart: !test.shared, OneUserns: test.oneUserns})
			if err != nil {
				t.Fatal(err)
			}
			if warned := len(got.Warnings) > 0; warned != (got.Mode == ModeOwn || test.oneUserns) {
				t.Errorf("warnings %q", got.Warnings)
			}
			if got.Warnings = nil; !equal(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func equal(a, b Decision) bool {
	return a.Mode == b.Mode && a.Network == b.Network && a.Apart == b.Apart && a.Peer == b.Peer && a.AsAsked == b.AsAsked && a.ForeignIPC == b.ForeignIPC
}

// TestOpenNetwork: members of a pod use low ports and ping without capabilities
// over its network, unless the pod's author has set it otherwise.
func TestOpenNetwork(t *testing.T) {
	t.Parallel()
	const ports = "net.ipv4.ip_unprivileged_port_start"
	for _, test := range []struct {
		name    string
		kind    string
		mode    Mode
		network Network
		set     map[string]string
		want    map[string]string
	}{
		{name: "sandbox", kind: "sandbox", mode: ModeAdopt, network: NetworkOwned, want: map[string]string{pingGroupRange: "0 2147483647", ports: "0"}},
		{name: "sandbox with a wish", kind: "sandbox", mode: ModeAdopt, network: NetworkOwned, set: map[string]string{ports: "80"}, want: map[string]string{pingGroupRange: "0 2147483647", ports: "80"}},
		{name: "sandbox on a foreign network", kind: "sandbox", mode: ModeOwn, network: NetworkForeign},
		{name: "calls itself one", kind: "sandbox", mode: ModeJoin, network: NetworkOwned},
		{name: "container", kind: "container", mode: ModeAdopt, network: NetworkOwned},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &specs.Spec{Annotations: map[string]string{typeAnnotation: test.kind}, Linux: &specs.Linux{
				Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: "/run/netns/a"}}, Sysctl: test.set,
			}}
			openNetwork(s, &Plan{Decision: Decision{Mode: test.mode, Network: test.network}, Nesting: nesting()})
			if got := s.Linux.Sysctl; len(got) != len(test.want) || got[pingGroupRange] != test.want[pingGroupRange] || got[ports] != test.want[ports] {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
