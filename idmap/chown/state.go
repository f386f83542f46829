// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/isolate-shim/isolate/idmap"
)

// stateVersion is the version of the state's format.
const stateVersion = 1

// State is what is known of the ids of a snapshot on disk.
type State struct {
	Version int `json:"version"`
	// Path, Inode and Birth name the snapshot's directory: without links, and
	// with the time it was made in ns since 1970, 0 where the file system keeps
	// none. No device number, since many change with a reboot.
	Path  string `json:"path"`
	Inode uint64 `json:"inode"`
	Birth int64  `json:"birth,omitempty"`
	// Spans are where ids on disk may be, besides those that no container has
	// shifted. The last one is the target of the last run.
	Spans []idmap.Span `json:"spans"`
	// Complete is the boot (random/boot_id of proc(5)) in which that run came to
	// its end; "" if it did not.
	Complete string `json:"complete,omitempty"`
	// Owner is the container that the run was for.
	Owner string `json:"owner"`
}

// parseState reads and checks a state, also one of a later version, as far as its fields
// are known: they do not change their meaning.
func parseState(data []byte) (State, error) {
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, fmt.Errorf("decode state: %w", err)
	}
	return s, s.valid()
}

func (s State) valid() error {
	switch {
	case s.Version < 1:
		return fmt.Errorf("state has version %d, the first one was 1", s.Version)
	case !filepath.IsAbs(s.Path) || filepath.Clean(s.Path) != s.Path:
		return fmt.Errorf("state: %q is not a clean absolute path", s.Path)
	case len(s.Spans) == 0:
		return errors.New("state: no span")
	}
	for _, span := range s.Spans {
		if span.First == 0 || span.Size == 0 || span.End() >= 1<<32 {
			return fmt.Errorf("state: ids from %d on, %d of them, are no span", span.First, span.Size)
		}
	}
	return nil
}

// Target is where the last run was to move all ids.
func (s State) Target() idmap.Span { return s.Spans[len(s.Spans)-1] }

// towards adds a target, as the last span.
func (s State) towards(to idmap.Span) State {
	s.Spans = slices.DeleteFunc(slices.Clone(s.Spans), func(o idmap.Span) bool { return o == to })
	s.Spans = append(s.Spans, to)
	s.Complete = ""
	return s
}

// settled keeps, besides the target, the spans in which ids were left.
func (s State) settled(left map[idmap.Span]bool, boot string) State {
	to := s.Target()
	s.Spans = slices.DeleteFunc(slices.Clone(s.Spans), func(o idmap.Span) bool { return o != to && !left[o] })
	s.Complete = boot
	return s
}

// reached tells whether nothing has to be done: all ids were moved there since
// the machine was started.
func (s State) reached(to idmap.Span, boot string) bool {
	return len(s.Spans) > 0 && s.Target() == to && s.Complete != "" && s.Complete == boot
}
