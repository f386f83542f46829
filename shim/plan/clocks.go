// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/spec"
)

// Clocks is a time namespace that the shim is to make.
type Clocks struct {
	// Userns is the path of the user namespace that owns it.
	Userns string
	// Asked are the offsets that the caller asks for; nil for clocks that begin with
	// the container.
	Asked map[string]specs.LinuxTimeOffset
}

// ClocksOf plans a container's time namespace: with the offsets that the caller asks
// for, or with clocks that begin with the container, if the runtime can join it and the
// administrator wants the container to see its own. It is nil if the shim makes none: a
// restored container has its clocks from before, and where the runtime makes the user
// namespace it makes both.
func ClocksOf(r Request, p *spec.Plan) *Clocks {
	c := Clocks{Userns: Userns(r.Spec, p), Asked: spec.AskedClocks(r.Spec)}
	own := r.Config.LXCFS.Mode != config.LXCFSOff && spec.OwnClocks(r.Spec)
	if r.Restored || !r.Runtime.TimeNamespaces() || c.Asked == nil && !own || c.Userns == "" {
		return nil
	}
	return &c
}

// Check refuses clocks that do not exist.
func (c Clocks) Check() error {
	for clock := range c.Asked {
		if clock != "boottime" && clock != "monotonic" {
			return fmt.Errorf("there is no clock %q: %w", clock, spec.ErrRefused)
		}
	}
	return nil
}

// Withheld are the files of lxcfs that the container does not get. A time namespace
// makes uptime unnecessary, and both together contradict each other: programs subtract
// start times, which count from the namespace's zero or the host's, from an uptime that
// is the container's age.
func Withheld(p *spec.Plan) []string {
	if p.Timens == "" {
		return nil
	}
	return []string{"proc/uptime"}
}
