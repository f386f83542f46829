// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// containerEnv is how systemd and others learn that they run in a container
// (systemd's "Container Interface").
const containerEnv = "container="

// StopSignal is what ends systemd in good order: SIGRTMIN+3, halt.target
// (systemd(1), "Signals"). SIGTERM only makes it re-execute itself.
const StopSignal = 37

// MaskedUnits are what systemd starts when it has the capability, and what
// then must fail, since the kernel grants it in the initial user namespace only.
var MaskedUnits = []string{"sys-kernel-debug.mount", "sys-kernel-tracing.mount", "systemd-modules-load.service"}

// systemd gives an init process what systemd wants of a container manager: a
// tmpfs on /run, unless the caller mounts something there, and no unit that is
// bound to fail.
func systemd(s *specs.Spec, p *Plan) {
	if !p.Nesting.Systemd {
		return
	}
	for _, m := range []specs.Mount{
		{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=755"}},
		{Destination: "/run/lock", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=1777", "size=5242880"}},
	} {
		if mountAt(s, m.Destination) < 0 && !onVolume(s, m.Destination) {
			s.Mounts = append(s.Mounts, m)
		}
	}
	if units := p.Nesting.Units; units != "" && mountAt(s, unitDir) < 0 && !onVolume(s, unitDir) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: unitDir, Type: "bind", Source: units, Options: []string{"bind", "rw", "nosuid", "nodev", "noexec"}})
	}
}

// unitDir is where systemd looks for units that last until it ends, before those
// of the image and after those of its administrator (systemd.unit(5)).
const unitDir = "/run/systemd/system"

func environment(proc *specs.Process) {
	if !slices.ContainsFunc(proc.Env, func(e string) bool { return strings.HasPrefix(e, containerEnv) }) {
		proc.Env = append(slices.Clone(proc.Env), containerEnv+"isolate")
	}
}
