// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hasDevices tells whether device rules belong to this hierarchy: to the one of v1
// that has the devices controller; if none has it, to v2, which has programs for it.
func hasDevices(m membership, all []membership) bool {
	return m.has("devices") || m.Unified() && !slices.ContainsFunc(all, func(m membership) bool { return m.has("devices") })
}

// denyDevices denies the group the machine's console, c 5:1, and its disks, unless the
// container was given them: a node with such a number in an image or on a volume would
// open them. The spec's rules deny them too, but crun adds a rule behind those that
// allows the console, and an update of resources that does not pass isolate can replace
// the rules.
//
// On v2 this is a program beside the runtime's. A device is opened only if all programs
// of the group and of the groups above allow it (BPF_F_ALLOW_MULTI,
// kernel/bpf/cgroup.c), so our program can only deny. It goes with the group.
func (g *group) denyDevices(given []specs.LinuxDeviceCgroup) error {
	if !g.unified {
		if slices.ContainsFunc(given, isConsole) {
			return nil
		}
		return g.write("devices.deny", "c 5:1 rwm")
	}
	instructions, license, err := cgroup2.DeviceFilter(bounds(given))
	if err != nil {
		return err
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupDevice, Instructions: instructions, License: license})
	if err != nil {
		return fmt.Errorf("load device filter: %w", err)
	}
	err = link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(g.Fd()), Program: program, Attach: ebpf.AttachCGroupDevice, Flags: unix.BPF_F_ALLOW_MULTI,
	})
	if err != nil {
		err = fmt.Errorf("attach device filter: %w", err)
	}
	return errors.Join(err, program.Close())
}

// bounds returns the rules of the program; the last rule for a device counts. Whether
// nodes can be made is left to the other programs.
func bounds(given []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
	rule := func(allow bool, kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Major: &major, Minor: &minor, Access: access}
	}
	rules := []specs.LinuxDeviceCgroup{
		rule(true, "a", -1, -1, "rwm"), rule(false, "b", -1, -1, "rw"), rule(false, "c", 5, 1, "rwm"),
	}
	for _, d := range given {
		if d.Type == "b" || isConsole(d) {
			rules = append(rules, rule(true, d.Type, *d.Major, *d.Minor, "rwm"))
		}
	}
	return rules
}

func isConsole(d specs.LinuxDeviceCgroup) bool {
	return d.Type == "c" && *d.Major == 5 && (*d.Minor == 1 || *d.Minor == -1)
}
