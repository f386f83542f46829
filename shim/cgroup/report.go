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
	// Skipped are the hierarchies in which nothing was done, and why. On hybrid
	// hosts there always are some; it is no degradation.
	Skipped []Skipped
	// Leaf is the directory init was moved to; empty if it was not.
	Leaf string
	// NoLeaf is why it was not, if that was asked for.
	NoLeaf string
	// Controllers are those that the container's children can use on v2.
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
