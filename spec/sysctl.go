// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
)

const pingGroupRange = "net.ipv4.ping_group_range"

// sysctls repairs what a user namespace cannot take. The groups of
// ping_group_range must be mapped (net/ipv4/sysctl_net_ipv4.c,
// ipv4_ping_group_range), while containerd and Docker send 0..2147483647; and
// sysctls of a network namespace are only writable for its owner.
func sysctls(s *specs.Spec, p *Plan) ([]string, error) {
	var warnings []string
	domainname(s)
	openNetwork(s, p)
	if v, ok := s.Linux.Sysctl[pingGroupRange]; ok && p.Network != NetworkForeign {
		fixed, err := clampGroups(v, p.Mapping)
		if err != nil {
			return nil, err
		}
		s.Linux.Sysctl[pingGroupRange] = fixed
	}
	for _, key := range slices.Sorted(maps.Keys(NetSysctls(s, p.Decision))) {
		delete(s.Linux.Sysctl, key)
		if !p.NetSysctlsSet {
			warnings = append(warnings, fmt.Sprintf("sysctl %s was dropped: the network namespace is the host's", key))
		}
	}
	return warnings, nil
}

// NetSysctls returns those sysctls that the runtime cannot set from inside the
// container's user namespace, because the network namespace is foreign. The shim
// sets them beforehand (Plan.NetSysctlsSet), unless that is the host's.
func NetSysctls(s *specs.Spec, d Decision) map[string]string {
	out := map[string]string{}
	for key, value := range s.Linux.Sysctl {
		if d.Network == NetworkForeign && (strings.HasPrefix(key, "net.") || strings.HasPrefix(key, "net/")) {
			out[key] = value
		}
	}
	return out
}

const domainnameKey = "kernel.domainname"

// domainname sets the NIS domain name by the spec's own field. Docker sends it as
// a sysctl, which the kernel lets only the host's root write (kernel/utsname_sysctl.c),
// while setdomainname(2) asks for the owner of the namespace.
func domainname(s *specs.Spec) {
	if v, ok := s.Linux.Sysctl[domainnameKey]; ok {
		delete(s.Linux.Sysctl, domainnameKey)
		s.Domainname = v
	}
}

// openNetwork lets every group of a container with a network namespace of its own
// use ping sockets, unless the caller has a say. The usual setting of
// distributions, "0 2147483647", fails inside a user namespace, and ping with it.
//
// In the network namespace of a pod it does so for containers that do not administer
// the namespace. It also lets them use ports below 1024, as they could with the
// capabilities of containerd's default. containerd 2.0 and later does the second only.
func openNetwork(s *specs.Spec, p *Plan) {
	n := Namespace(s, specs.NetworkNamespace)
	pod := s.Annotations[typeAnnotation] == "sandbox" && p.Mode != ModeJoin && p.Network == NetworkOwned
	if p.Nesting == nil || n == nil || n.Path != "" && !pod {
		return
	}
	want := map[string]string{pingGroupRange: "0 2147483647"}
	if pod {
		want["net.ipv4.ip_unprivileged_port_start"] = "0"
	}
	maps.Copy(want, s.Linux.Sysctl)
	s.Linux.Sysctl = want
}

// clampGroups cuts the end of a "first last" group range to the groups that are
// mapped without a gap from first on. An empty range ("1 0") stays.
func clampGroups(value string, m idmap.Mapping) (string, error) {
	fields := strings.Fields(value)
	if len(fields) != 2 {
		return "", fmt.Errorf("sysctl %s: %q is not a range \"first last\"", pingGroupRange, value)
	}
	var ends [2]uint64
	for i, f := range fields {
		n, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return "", fmt.Errorf("sysctl %s: %q: %w", pingGroupRange, value, err)
		}
		ends[i] = n
	}
	if ends[0] > ends[1] {
		return value, nil
	}
	for _, r := range m.GIDs {
		first, size := uint64(r.Container), uint64(r.Size)
		if ends[0] >= first && ends[0] < first+size {
			return fmt.Sprintf("%d %d", ends[0], min(ends[1], first+size-1)), nil
		}
	}
	return "", fmt.Errorf("sysctl %s: group %d is outside the container's id range: %w", pingGroupRange, ends[0], ErrRefused)
}
