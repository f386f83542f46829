// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"
	"slices"
	"strings"
)

// The types that container-selinux has for what runs system software in a
// container, since 2.134. Both may manage control groups. The first one may mount
// every kind of file system, the second one, which podman gives to systemd, no
// more than an ordinary container.
const (
	typeEngine = "container_engine_t"
	typeInit   = "container_init_t"
)

// NestingTypes are the SELinux types to ask a policy for.
var NestingTypes = []string{typeEngine, typeInit}

// ordinaryTypes are what engines give to containers for which nobody asked for a
// type; the second is the first's old name.
var ordinaryTypes = []string{"container_t", "svirt_lxc_net_t"}

// LabelOfType returns an SELinux label with another type. The level, which tells
// containers from each other, stays. It returns "" for what is no label.
func LabelOfType(label, name string) string {
	parts := strings.SplitN(label, ":", 4) // user, role, type, level
	if len(parts) < 3 {
		return ""
	}
	parts[2] = name
	return strings.Join(parts, ":")
}

// OrdinaryLabel tells whether a process label has a type that engines give by
// default, in the place of which another can be chosen.
func OrdinaryLabel(label string) bool {
	parts := strings.SplitN(label, ":", 4)
	return len(parts) >= 3 && slices.Contains(ordinaryTypes, parts[2])
}

// seLabel returns the label of a process in a container in which others, or
// systemd, run. have are the NestingTypes that the policy has.
//
// systemd gets the engines' type as well if there is one, since Docker may run below
// systemd and has to mount there too. A process without a label (Kubernetes sends none
// for privileged containers) and a label whose type somebody has asked for stay.
func seLabel(label string, isSystemd bool, have []string) string {
	switch {
	case !OrdinaryLabel(label):
	case slices.Contains(have, typeEngine):
		return LabelOfType(label, typeEngine)
	case isSystemd && slices.Contains(have, typeInit):
		return LabelOfType(label, typeInit)
	}
	return label
}

// seDenies warns of a label under which nothing can be nested.
func seDenies(label string, have []string) []string {
	if !OrdinaryLabel(label) || slices.Contains(have, typeEngine) {
		return nil
	}
	return []string{fmt.Sprintf("SELinux denies mounts to %s and knows of no %s: install container-selinux 2.134 or later to run containers inside", label, typeEngine)}
}
