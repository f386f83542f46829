// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/proc"
)

// Owner names the container a range belongs to.
type Owner struct {
	// Namespace and ID are containerd's.
	Namespace string `json:"namespace"`
	ID        string `json:"id"`
	// Cgroups are absolute directories the container's processes are in: one on
	// cgroup v2, on v1 as many hierarchies as are known. A directory that does
	// not exist counts as empty.
	Cgroups []string `json:"cgroups,omitempty"`
}

// record is the content of a slot file.
type record struct {
	owner   Owner
	span    idmap.Span
	mapping *idmap.Mapping // if it was adopted
	joined  []Owner
	inits   []proc.ID
	cgroups []string
}

// A slot file holds one claim line and then any number of others. So does the file of
// an adopted mapping.
type (
	line struct {
		Claim *claim `json:"claim,omitempty"`
		Bound *bound `json:"bound,omitempty"`
		// Joined is a further owner; see Pool.Share.
		Joined *Owner `json:"joined,omitempty"`
	}
	claim struct {
		Owner Owner `json:"owner"`
		idmap.Span
		// Mapping is what was adopted, instead of a span.
		Mapping *idmap.Mapping `json:"mapping,omitempty"`
	}
	bound struct {
		Init    proc.ID  `json:"init"`
		Cgroups []string `json:"cgroups,omitempty"`
	}
)

func (l line) encode() ([]byte, error) {
	b, err := json.Marshal(l)
	return append(b, '\n'), err
}

// parseRecord reads a slot file; ok is false if it names no owner. A last line
// without its newline was cut off by a crash and is ignored, see the package
// documentation. Anything else that cannot be read is an error: something
// foreign is in the file, and the slot must not be given away on a guess. What a
// later version may have added is skipped.
func parseRecord(content string) (r record, ok bool, err error) {
	for text := range strings.Lines(content) {
		if !strings.HasSuffix(text, "\n") {
			break
		}
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return record{}, false, fmt.Errorf("parse slot line %q: %w", strings.TrimSpace(text), err)
		}
		switch {
		case l.Claim != nil && !ok:
			ok = true
			r = record{
				owner:   l.Claim.Owner,
				span:    l.Claim.Span,
				mapping: l.Claim.Mapping,
				cgroups: slices.Clone(l.Claim.Owner.Cgroups),
			}
		case l.Bound != nil && ok:
			r.inits = append(r.inits, l.Bound.Init)
			r.cgroups = append(r.cgroups, l.Bound.Cgroups...)
		case l.Joined != nil && ok:
			r.joined = append(r.joined, *l.Joined)
			r.cgroups = append(r.cgroups, l.Joined.Cgroups...)
		case l == line{}:
			// Of a later version.
		default:
			return record{}, false, fmt.Errorf("parse slot line %q: out of place", strings.TrimSpace(text))
		}
	}
	return r, ok, nil
}
