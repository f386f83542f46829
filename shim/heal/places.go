// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"maps"

	"github.com/isolate-shim/isolate/shim/lxcfs"
)

// places is what a mount namespace should show: the places in which it is owed a file
// of lxcfs.
type places struct {
	// own is set for the namespace of the container's first process. It is owed a file
	// also in places of which nothing is known: those that a newer lxcfs serves, and all
	// if there was no lxcfs before. In other namespaces only what was lost comes back.
	own bool
	// owed has the known places. It is true if a dead file was detached there. It is
	// false if there was a file, or cannot be one: if there is none now, the container
	// has removed it.
	owed map[string]bool
}

// newPlaces returns the places of a namespace that has files, or cannot have them.
func newPlaces(own bool, files ...string) places {
	p := places{own: own, owed: map[string]bool{}}
	for _, name := range files {
		p.owed[name] = false
	}
	return p
}

// lacking tells whether the namespace could be owed a file.
func (p places) lacking() bool {
	for _, owed := range p.owed {
		if owed {
			return true
		}
	}
	return p.own && len(p.owed) == 0
}

// diff returns the files that the namespace is owed, of those that a living server has
// for it.
func (p places) diff(served []lxcfs.File) (missing []lxcfs.File) {
	for _, f := range served {
		if owed, known := p.owed[f.Name]; owed || p.own && !known {
			missing = append(missing, f)
		}
	}
	return missing
}

// detached notes that a dead file was detached.
func (p places) detached(name string) { p.owed[name] = true }

// settled notes that a place has a file, or is not to get one.
func (p places) settled(name string) { p.owed[name] = false }

// served notes that all files of a living server are in their places. It has none for
// the others that are owed: they are forgotten.
func (p places) served() {
	maps.DeleteFunc(p.owed, func(_ string, owed bool) bool { return owed })
}
