// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	all := []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.MountNamespace}}
	without := func(types ...specs.LinuxNamespaceType) []specs.LinuxNamespace {
		var out []specs.LinuxNamespace
		for _, n := range all {
			keep := true
			for _, t := range types {
				keep = keep && n.Type != t
			}
			if keep {
				out = append(out, n)
			}
		}
		return out
	}
	with := func(list []specs.LinuxNamespace, more ...specs.LinuxNamespace) []specs.LinuxNamespace {
		return append(append([]specs.LinuxNamespace{}, list...), more...)
	}
	user := specs.LinuxNamespace{Type: specs.UserNamespace}
	ids := []specs.LinuxIDMapping{{HostID: 65536, Size: 65536}}
	netPath := specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/run/netns/a"}
	owner := func(t specs.LinuxNamespaceType, o Owner) map[specs.LinuxNamespaceType]Owner {
		return map[specs.LinuxNamespaceType]Owner{t: o}
	}

	tests := []struct {
		name       string
		namespaces []specs.LinuxNamespace
		mappings   []specs.LinuxIDMapping
		quiet      bool // no warning although the network is foreign
		facts      Facts
		policy     Policy
		mode       Mode
		network    Network
		err        string // part of it
	}{
		{name: "plain", namespaces: all, mode: ModeOwn, network: NetworkOwned},
		{name: "mapped by the caller", namespaces: with(all, user), mappings: ids, mode: ModeAdopt, network: NetworkOwned},
		{name: "user namespace without mapping", namespaces: with(all, user), err: "linux.uidMappings"},
		{name: "of a pod", namespaces: all, facts: Facts{Sandbox: &Sandbox{}}, mode: ModeJoin, network: NetworkOwned},
		{name: "pod that Kubernetes mapped", namespaces: with(all, user), mappings: ids, facts: Facts{Sandbox: &Sandbox{}}, mode: ModeAdopt, network: NetworkOwned},
		{name: "host pid", namespaces: without(specs.PIDNamespace), err: "host's pid namespace"},
		{name: "host ipc", namespaces: without(specs.IPCNamespace), err: "host's ipc namespace"},
		{name: "pid of a host container", namespaces: with(without(specs.PIDNamespace), specs.LinuxNamespace{Type: specs.PIDNamespace, Path: "/proc/7/ns/pid"}), facts: Facts{Joined: owner(specs.PIDNamespace, OwnerHost)}, err: `"/proc/7/ns/pid" belongs to the host`},
		{name: "host network", namespaces: without(specs.NetworkNamespace), mode: ModeOwn, network: NetworkForeign},
		{name: "host network refused", namespaces: without(specs.NetworkNamespace), policy: Policy{RefuseForeignNetns: true}, err: `foreign_netns is "refuse"`},
		{name: "network made by the host", namespaces: with(without(specs.NetworkNamespace), netPath), facts: Facts{Joined: owner(specs.NetworkNamespace, OwnerHost)}, mode: ModeOwn, network: NetworkForeign},
		{name: "network of somebody else", namespaces: with(without(specs.NetworkNamespace), netPath), facts: Facts{Joined: owner(specs.NetworkNamespace, OwnerOther)}, mode: ModeOwn, network: NetworkForeign},
		{name: "network of the sandbox", namespaces: with(without(specs.NetworkNamespace), netPath), facts: Facts{Sandbox: &Sandbox{}, Joined: owner(specs.NetworkNamespace, OwnerSandbox)}, mode: ModeJoin, network: NetworkOwned},
		{name: "network made for the mapping", namespaces: with(without(specs.NetworkNamespace), user, netPath), mappings: ids, facts: Facts{Joined: owner(specs.NetworkNamespace, OwnerOther)}, mode: ModeAdopt, network: NetworkOwned},
		{name: "host network with a mapping", namespaces: with(without(specs.NetworkNamespace), user, netPath), mappings: ids, facts: Facts{Joined: owner(specs.NetworkNamespace, OwnerHost)}, mode: ModeAdopt, network: NetworkForeign},
		{name: "pod without a mapping, later container", namespaces: with(without(specs.NetworkNamespace), netPath), facts: Facts{Sandbox: &Sandbox{Network: NetworkForeign}, Joined: owner(specs.NetworkNamespace, OwnerHost)}, mode: ModeJoin, network: NetworkForeign, quiet: true},
		{name: "host's network in a pod that has its own", namespaces: with(without(specs.NetworkNamespace), netPath), facts: Facts{Sandbox: &Sandbox{Network: NetworkOwned}, Joined: owner(specs.NetworkNamespace, OwnerHost)}, mode: ModeJoin, network: NetworkForeign},
		{name: "pod without a mapping, refused", namespaces: with(without(specs.NetworkNamespace), netPath), facts: Facts{Sandbox: &Sandbox{Network: NetworkForeign}, Joined: owner(specs.NetworkNamespace, OwnerHost)}, policy: Policy{RefuseForeignNetns: true}, err: "foreign_netns"},
		{name: "rootfs mapped but no user namespace", namespaces: all, facts: Facts{RootfsMapped: true}, err: "uidmap="},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &specs.Spec{Linux: &specs.Linux{Namespaces: tt.namespaces, UIDMappings: tt.mappings, GIDMappings: tt.mappings}}
			d, err := Decide(s, tt.facts, tt.policy)
			if tt.err != "" {
				if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got error %v, want a refusal with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d.Mode != tt.mode || d.Network != tt.network {
				t.Errorf("got %s with network %s, want %s with %s", d.Mode, d.Network, tt.mode, tt.network)
			}
			if warned := len(d.Warnings) > 0; warned != (tt.network == NetworkForeign && !tt.quiet) {
				t.Errorf("warnings %q for network %s", d.Warnings, d.Network)
			}
		})
	}
}
