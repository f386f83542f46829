// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// step is one edit of the spec. Steps return warnings (degradations, one
// sentence each) and refuse what cannot be repaired. Every step is idempotent:
// applied to its own result it changes nothing.
type step struct {
	name  string
	apply func(*specs.Spec, *Plan) (warnings []string, err error)
}

// pipeline lists the edits in order.
//
//   - annotations, version and root: no precondition.
//   - namespaces: adds or joins the user namespace and those that a container
//     of its own needs.
//   - clocks, time namespace: after namespaces, whose pid namespace decides; the
//     second for what the first has not replaced.
//   - volumes: precondition: indexes of Plan.Staged are those of the caller's
//     mounts, so it runs before anything adds or removes mounts.
//   - kernel and mounts: after volumes; they replace entries in place.
//   - devices: before nesting, which adds those of the container's own.
//   - nesting: after kernel, and only if the plan says so.
//   - device rules: after nesting, which adds some.
//   - sysctl, process: after namespaces.
var pipeline = []step{
	{"annotations", annotations},
	{"version", version},
	{"root", root},
	{"namespaces", namespaces},
	{"clocks", clocks},
	{"time namespace", timens},
	{"volumes", volumes},
	{"kernel", kernelMounts},
	{"devices", unprivileged},
	{"nesting", nest},
	{"device rules", deviceRules},
	{"mounts", mountOptions},
	{"sysctl", sysctls},
	{"process", initProcess},
}

// Apply edits s in place as p says and returns the warnings of all steps.
func Apply(s *specs.Spec, p *Plan) ([]string, error) {
	var warnings []string
	for _, st := range pipeline {
		w, err := st.apply(s, p)
		warnings = append(warnings, w...)
		if err != nil {
			return warnings, fmt.Errorf("spec %s: %w", st.name, err)
		}
	}
	return warnings, nil
}

func version(s *specs.Spec, p *Plan) ([]string, error) {
	if p.OCIVersion != "" {
		s.Version = p.OCIVersion
	}
	return nil, nil
}

func root(s *specs.Spec, p *Plan) ([]string, error) {
	if p.Rootfs != "" {
		s.Root.Path = p.Rootfs
	}
	return nil, nil
}
