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

// systemd gives an init process what systemd wants of a container manager: a
// tmpfs on /run, unless the caller mounts something there.
func systemd(s *specs.Spec, p *Plan) {
	if !p.Nesting.Systemd {
		return
	}
	for _, m := range []specs.Mount{
		{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=755"}},
		{Destination: "/run/lock", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=1777", "size=5242880"}},
	} {
		if mountAt(s, m.Destination) < 0 {
			s.Mounts = append(s.Mounts, m)
		}
	}
}

func environment(proc *specs.Process) {
	if !slices.ContainsFunc(proc.Env, func(e string) bool { return strings.HasPrefix(e, containerEnv) }) {
		proc.Env = append(slices.Clone(proc.Env), containerEnv+"isolate")
	}
}
