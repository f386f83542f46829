// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/spec"
)

// Request is what is asked for, and by what it is answered.
type Request struct {
	Spec *specs.Spec
	// Config has the annotations of the container in it.
	Config  config.Config
	Runtime runtime.Binary
	// Restored is set if a checkpoint has the container: CRIU makes its user namespace,
	// and it has its clocks from before.
	Restored bool
}

// New plans what follows from the request, and from whose namespaces it joins. The ids
// of a container that gets a range of its own are not known yet.
func New(r Request, f spec.Facts) (spec.Plan, error) {
	d, err := spec.Decide(r.Spec, f, policy(r.Config, r.Runtime))
	if err != nil {
		return spec.Plan{}, err
	}
	p := spec.Plan{
		Decision:       d,
		MisreportsPIDs: r.Runtime.Name == runtime.Crun,
		OCIVersion:     r.Runtime.OCIVersion(r.Spec.Version),
	}
	p.Annotations.Allowed = r.Config.Annotations.Allow
	if r.Runtime.Features != nil {
		p.Annotations.Obeyed = r.Runtime.Features.PotentiallyUnsafeConfigAnnotations
	}
	switch d.Mode {
	case spec.ModeAdopt:
		if p.Mapping, err = idmap.FromSpec(r.Spec.Linux.UIDMappings, r.Spec.Linux.GIDMappings); err != nil {
			return spec.Plan{}, fmt.Errorf("id mapping of the spec: %w: %w", err, spec.ErrRefused)
		}
	case spec.ModeJoin:
		p.Mapping = f.Sandbox.Mapping
		if !d.Apart {
			p.Userns = f.Sandbox.Userns
		}
	case spec.ModeOwn:
	}
	if d.Peer {
		p.Userns = f.Peer.Userns
	}
	return p, nil
}

func policy(cfg config.Config, bin runtime.Binary) spec.Policy {
	return spec.Policy{
		RefuseForeignNetns: cfg.ForeignNetns == config.ForeignNetnsRefuse,
		Apart:              cfg.Pods == config.PodsApart && cfg.Nesting == config.NestingFull && cfg.Caps == config.CapsFull,
		OneUserns:          bin.OneUserns(),
	}
}

// Nesting plans what a container gets for containers inside it, as far as the
// configuration says; nil if it gets nothing.
func Nesting(cfg config.Config, d spec.Decision) *spec.Nesting {
	if cfg.Nesting == config.NestingOff {
		return nil
	}
	return &spec.Nesting{
		KeepCaps:    cfg.Caps == config.CapsHonor || d.AsAsked,
		KeepSeccomp: cfg.Seccomp == config.SeccompKeep,
	}
}

// ShowsInner tells whether the containers inside this one are to see its limits.
func ShowsInner(p *spec.Plan, cfg config.Config) bool { return reports(p) && cfg.LXCFS.Nested }

// AnswersSysinfo tells whether the programs of this container, and of those inside it,
// are to see its limits by sysinfo(2) too.
func AnswersSysinfo(p *spec.Plan, cfg config.Config) bool { return reports(p) && cfg.LXCFS.Sysinfo }

// reports tells whether the container's seccomp profile may report system calls.
func reports(p *spec.Plan) bool { return p.Nesting != nil && !p.Nesting.KeepSeccomp }
