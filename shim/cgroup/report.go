// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"strings"
)

// Report says what [Delegate] did.
type Report struct {
	// Delegated are the directories that now belong to the container's root.
	Delegated []string
	// Skipped are the hierarchies in which nothing was done, and why. Hybrid hosts
	// always have some; that is no degradation.
	Skipped []Skipped
	// Leaf is the directory to which init was moved; empty if it was not moved.
	Leaf string
	// NoLeaf says why init was not moved although [Options.Leaf] was set.
	NoLeaf string
	// Controllers are the v2 controllers that the container's children can use.
	Controllers []string
}

// Skipped is a hierarchy in which the container got nothing.
type Skipped struct{ Hierarchy, Reason string }

// String is the report in one line for the log.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d delegated", len(r.Delegated))
	for _, s := range r.Skipped {
		fmt.Fprintf(&b, ", %s skipped (%s)", s.Hierarchy, s.Reason)
	}
	switch {
	case r.Leaf != "":
		fmt.Fprintf(&b, ", init in a leaf with %s", strings.Join(r.Controllers, " "))
	case r.NoLeaf != "":
		fmt.Fprintf(&b, ", no leaf (%s)", r.NoLeaf)
	}
	return b.String()
}
