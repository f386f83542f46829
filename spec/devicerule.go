// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Node is a device that a container was given.
type Node struct {
	Type  string // "c" or "b"
	Major int64
	// Minor is -1 for every device of a major number: the caller has bound a
	// directory of the host's /dev in which some are, and more may come.
	Minor int64
}

// Nodes lists the devices that the caller gives by linux.devices: none of those
// that mean privileged, since they are all of the host's.
func Nodes(s *specs.Spec) []Node {
	if privileged(s) {
		return nil
	}
	var out []Node
	for _, d := range s.Linux.Devices {
		if kind := deviceType(d.Type); kind == "c" || kind == "b" {
			out = append(out, Node{kind, d.Major, d.Minor})
		}
	}
	return out
}

// DeviceSources lists what the caller binds that can hold devices which linux.devices
// does not name: the host's /dev, what is in it, and single files. It is empty
// unless a rule would open such a device.
func DeviceSources(s *specs.Spec) []string {
	if s.Linux.Resources == nil || !slices.ContainsFunc(s.Linux.Resources.Devices, func(r specs.LinuxDeviceCgroup) bool {
		_, lost := narrow(r, slices.Concat(Nodes(s), nestingNodes))
		return lost && !allowsAll(r)
	}) {
		return nil
	}
	var out []string
	for _, m := range s.Mounts {
		if isBind(m) && path.IsAbs(m.Source) {
			out = append(out, path.Clean(m.Source))
		}
	}
	return out
}

// NodeRules names devices as rules do that allow them.
func NodeRules(nodes []Node) []specs.LinuxDeviceCgroup {
	out := make([]specs.LinuxDeviceCgroup, len(nodes))
	for i, n := range nodes {
		out[i] = specs.LinuxDeviceCgroup{Allow: true, Type: n.Type, Major: &n.Major, Minor: &n.Minor, Access: "rwm"}
	}
	return out
}

func deviceType(kind string) string {
	if kind == "u" {
		return "c" // mknod(1): a character device without a buffer
	}
	return kind
}

// defaultNodes are what every OCI runtime lets a container open whatever the
// rules are, and what clients list therefore (OCI runtime spec, config-linux.md,
// "Default Devices"; crun's default_devices and runc's AllowedDevices).
var defaultNodes = []Node{{"c", 1, 3}, {"c", 1, 5}, {"c", 1, 7}, {"c", 1, 8}, {"c", 1, 9}, {"c", 5, 0}, {"c", 5, 2}, {"c", 136, -1}}

// nestingNodes are the numbers of nestingDevices.
var nestingNodes = func() []Node {
	var out []Node
	for _, d := range nestingDevices {
		out = append(out, Node{d.Type, d.Major, d.Minor})
	}
	return out
}()

// unasked are what clients allow for every container, needed or not: the
// container's console, and /dev/net/tun.
var unasked = []Node{{"c", 5, 1}, {"c", 10, 200}}

// deviceRules makes the device rules open what the container was given and
// nothing else.
//
// A node in an image, or on a volume, belongs to the container's root, and only this
// list keeps that root from the device. So a rule that allows more than one device
// shrinks to the devices that the container was given; privileged containers have
// such rules in many forms. Permission to make nodes (m) is every runtime's default,
// and harmless: the kernel lets nobody make one in a user namespace. A list that
// denies nothing gets a rule that denies, since crun then allows what the parent group
// allows.
func deviceRules(s *specs.Spec, p *Plan) ([]string, error) {
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	nodes := p.Nodes
	if p.Nesting != nil {
		nodes = slices.Concat(nodes, nestingNodes)
	}
	var warnings []string
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, r := range s.Linux.Resources.Devices {
		switch {
		case !r.Allow && anyDevice(r) && strings.Trim("rwm", r.Access) == "":
			rules = rules[:1] // nothing before it matters
		case !r.Allow:
			if !onConsole(r) {
				rules = append(rules, ofTypes(r)...)
			}
		default:
			kept, lost := narrow(r, nodes)
			rules = append(rules, kept...)
			if lost {
				warnings = append(warnings, fmt.Sprintf("device rule %q opens only devices that the container was given: give it the device too, or bind it from /dev", text(r)))
			}
		}
	}
	if !given(console, nodes) && CgroupPath(s, false) != "" { // else it is the systemd driver
		rules = append(rules, console)
	}
	s.Linux.Resources.Devices = rules
	return warnings, nil
}

// narrow returns what stays of a rule that allows something, and whether that is
// less than somebody may miss.
func narrow(r specs.LinuxDeviceCgroup, nodes []Node) (kept []specs.LinuxDeviceCgroup, lost bool) {
	for _, r := range ofTypes(r) {
		if given(r, nodes) || given(r, defaultNodes) {
			kept = append(kept, r)
			continue
		}
		access := strings.ReplaceAll(r.Access, "m", "")
		if access == "" {
			continue
		}
		lost = lost || !given(r, unasked)
		for _, n := range nodes {
			if n.Minor >= 0 && r.Type == n.Type && matches(r.Major, n.Major) && matches(r.Minor, n.Minor) {
				kept = append(kept, specs.LinuxDeviceCgroup{Allow: true, Type: n.Type, Major: &n.Major, Minor: &n.Minor, Access: access})
			}
		}
	}
	return kept, lost
}

// given tells whether a rule is for one device of a list, or for all devices of a
// major number that the list has as such.
func given(r specs.LinuxDeviceCgroup, nodes []Node) bool {
	return !wild(r.Major) && slices.ContainsFunc(nodes, func(n Node) bool {
		return deviceType(r.Type) == n.Type && *r.Major == n.Major && (n.Minor < 0 || !wild(r.Minor) && *r.Minor == n.Minor)
	})
}

// ofTypes splits a rule for both types of devices: crun does not look at the
// numbers in one, and allows or denies everything (write_devices_resources_v1).
func ofTypes(r specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
	if kind := deviceType(r.Type); kind != "" && kind != "a" {
		r.Type = kind
		return []specs.LinuxDeviceCgroup{r}
	}
	if r.Access == "" {
		r.Access = "rwm"
	}
	char, block := r, r
	char.Type, block.Type = "c", "b"
	return []specs.LinuxDeviceCgroup{char, block}
}

func wild(n *int64) bool { return n == nil || *n < 0 }

func matches(pattern *int64, n int64) bool { return wild(pattern) || *pattern == n }

func anyDevice(r specs.LinuxDeviceCgroup) bool {
	return (r.Type == "" || r.Type == "a") && wild(r.Major) && wild(r.Minor)
}

// text is a rule as devices.allow and docker run --device-cgroup-rule have it.
func text(r specs.LinuxDeviceCgroup) string {
	number := func(n *int64) string {
		if wild(n) {
			return "*"
		}
		return fmt.Sprint(*n)
	}
	kind := r.Type
	if kind == "" {
		kind = "a"
	}
	return fmt.Sprintf("%s %s:%s %s", kind, number(r.Major), number(r.Minor), r.Access)
}
