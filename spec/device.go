// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Device is a device node that the shim makes for a container, on a tmpfs of
// its own: a bind of the host's node would belong to nobody in the container's
// user namespace, with the host's mode.
type Device struct {
	Path         string // in the container
	Type         string // "c" or "b"
	Major, Minor int64
	UID, GID     uint32 // in the container
	Mode         os.FileMode
}

// nestingDevices are what FUSE file systems and VPNs inside need; the kernel
// lets user namespaces use both (FUSE since 4.18, tun for the owner of the
// network namespace).
var nestingDevices = []Device{
	{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, Mode: 0o666},
	{Path: "/dev/net/tun", Type: "c", Major: 10, Minor: 200, Mode: 0o666},
}

// Devices lists the nodes to make: the ones that nesting needs, and the ones that the
// caller asked for. It leaves the caller's out if the caller asked for privileged,
// which means all devices of the host: a container is never privileged on the host.
func Devices(s *specs.Spec) []Device {
	out := slices.Clone(nestingDevices)
	if privileged(s) {
		return out
	}
	for _, d := range s.Linux.Devices {
		if d.Type != "c" && d.Type != "u" && d.Type != "b" {
			continue // a fifo is the runtime's business
		}
		dev := Device{Path: d.Path, Type: d.Type, Major: d.Major, Minor: d.Minor, Mode: 0o666}
		if d.FileMode != nil {
			dev.Mode = d.FileMode.Perm()
		}
		if d.UID != nil {
			dev.UID = *d.UID
		}
		if d.GID != nil {
			dev.GID = *d.GID
		}
		if i := slices.IndexFunc(out, func(o Device) bool { return o.Path == d.Path }); i >= 0 {
			continue
		}
		out = append(out, dev)
	}
	return out
}

// privileged recognises what clients send for --privileged: every device
// allowed, in one rule or in one for each type.
func privileged(s *specs.Spec) bool {
	if s.Linux.Resources == nil {
		return false
	}
	types := ""
	for _, r := range s.Linux.Resources.Devices {
		if allowsAll(r) {
			return true
		}
		if r.Allow && wild(r.Major) && wild(r.Minor) && strings.ContainsAny(r.Access, "rw") {
			types += deviceType(r.Type)
		}
	}
	return strings.Contains(types, "c") && strings.Contains(types, "b")
}

func allowsAll(r specs.LinuxDeviceCgroup) bool {
	return r.Allow && anyDevice(r) && (r.Access == "" || strings.ContainsAny(r.Access, "rw"))
}

// unprivileged takes the devices of the host away from a container for which the
// caller asked for privileged, whether others run in it or not: crun hands out
// nodes of the host in a way that the container's root can open them.
func unprivileged(s *specs.Spec, _ *Plan) ([]string, error) {
	if !privileged(s) {
		return nil, nil
	}
	rules := slices.DeleteFunc(slices.Clone(s.Linux.Resources.Devices), allowsAll)
	s.Linux.Resources.Devices = append([]specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, rules...)
	s.Linux.Devices = nil // fifos too: /dev/initctl is the host's
	return nil, nil
}

// devices puts the staged nodes in place of the host's and allows them in the
// device cgroup.
func devices(s *specs.Spec, p *Plan) {
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	rules := slices.Clone(s.Linux.Resources.Devices)
	for _, d := range nestingDevices {
		rule := specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: "rwm"}
		if !slices.ContainsFunc(rules, func(r specs.LinuxDeviceCgroup) bool { return sameDevice(r, rule) }) {
			rules = append(rules, rule)
		}
	}
	s.Linux.Resources.Devices = rules

	s.Linux.Devices = slices.DeleteFunc(slices.Clone(s.Linux.Devices), func(d specs.LinuxDevice) bool {
		_, staged := p.Nesting.Devices[d.Path]
		return staged && !onVolume(s, d.Path)
	})
	if mountAt(s, "/dev") < 0 {
		return
	}
	for _, path := range slices.Sorted(maps.Keys(p.Nesting.Devices)) {
		if i := mountAt(s, path); i >= 0 && s.Mounts[i].Source != p.Nesting.Devices[path] {
			continue // the caller's own volume wins
		}
		if onVolume(s, path) {
			continue
		}
		setMount(s, specs.Mount{Destination: path, Type: "bind", Source: p.Nesting.Devices[path], Options: []string{"bind", "rw", "nosuid", "noexec"}})
	}
	// kubelet and others read or write the kernel log, which is the host's.
	if mountAt(s, "/dev/kmsg") < 0 && !onVolume(s, "/dev/kmsg") {
		setMount(s, specs.Mount{Destination: "/dev/kmsg", Type: "bind", Source: "/dev/null", Options: []string{"bind", "rw", "nosuid", "noexec"}})
	}
}

// console keeps the machine's console away. Clients allow it for the container's
// /dev/console, which is a terminal of the container's own or nothing at all; a
// node with that number in an image or on a volume would open the machine's.
// With the systemd driver crun refuses a spec with such a rule ("systemd does
// not support deny rules for devices"); package cgroup denies it in any case.
var console = specs.LinuxDeviceCgroup{Allow: false, Type: "c", Major: number(5), Minor: number(1), Access: "rwm"}

func number(n int64) *int64 { return &n }

// onConsole recognises rules for the machine's console and nothing else.
func onConsole(r specs.LinuxDeviceCgroup) bool {
	return r.Type == "c" && r.Major != nil && r.Minor != nil && *r.Major == 5 && *r.Minor == 1
}

func sameDevice(a, b specs.LinuxDeviceCgroup) bool {
	return a.Allow == b.Allow && a.Type == b.Type && a.Access == b.Access &&
		a.Major != nil && a.Minor != nil && *a.Major == *b.Major && *a.Minor == *b.Minor
}

// stores binds the directories of inner image stores; a caller's own volume on
// such a path wins, and one below it stays on top.
func stores(s *specs.Spec, p *Plan) {
	for _, path := range slices.Sorted(maps.Keys(p.Nesting.Stores)) {
		if mountAt(s, path) >= 0 {
			continue
		}
		m := specs.Mount{Destination: path, Type: "bind", Source: p.Nesting.Stores[path], Options: []string{"rbind", "rw"}}
		at := slices.IndexFunc(s.Mounts, func(o specs.Mount) bool { return below(o.Destination, path) })
		if at < 0 {
			at = len(s.Mounts)
		}
		s.Mounts = slices.Insert(s.Mounts, at, m)
	}
}
