// SPDX-License-Identifier: Apache-2.0

package heal

import "github.com/isolate-shim/isolate/shim/lxcfs"

// state is what is known of the files of lxcfs in one mount namespace.
type state struct {
	// settled are the places that had a file once, or cannot have one. If they
	// have none now, the container did that.
	settled map[string]bool
	// lost are the places of files that were detached because they were dead.
	lost map[string]bool
	// fresh tells that places that are not settled may get files as well: those
	// that a newer lxcfs serves, and all if there was none before.
	fresh bool
}

func newState(files []string, fresh bool) *state {
	s := &state{settled: map[string]bool{}, lost: map[string]bool{}, fresh: fresh}
	for _, name := range files {
		s.settled[name] = true
	}
	return s
}

// lacks tells whether files could be missing.
func (s *state) lacks() bool { return len(s.lost) > 0 || s.fresh && len(s.settled) == 0 }

// wants tells whether a file may be put in its place.
func (s *state) wants(name string) bool { return s.lost[name] || s.fresh && !s.settled[name] }

// detached notes that a dead file was detached.
func (s *state) detached(name string) { s.lost[name] = true }

// settle notes that a place has a file, or is not to get one.
func (s *state) settle(name string) {
	s.settled[name] = true
	delete(s.lost, name)
}

// healed forgets the places that the new server has no file for.
func (s *state) healed() {
	for name := range s.lost {
		delete(s.settled, name)
		delete(s.lost, name)
	}
}

// dead are the mounts to detach, topmost first, given which servers are dead.
func dead(bound []lxcfs.MountedFile, isDead func(lxcfs.MountedFile) bool) []lxcfs.MountedFile {
	var out []lxcfs.MountedFile
	for i := len(bound) - 1; i >= 0; i-- {
		if isDead(bound[i]) {
			out = append(out, bound[i])
		}
	}
	return out
}
