// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"errors"
	"fmt"
	"slices"

	"github.com/isolate-shim/isolate/idmap"
)

// CheckHost refuses a mapping that somebody else has made if it contains host ids
// of the host itself: its root, or an account in passwd or group.
//
// As the host's root a container owns the settings of the machine in /proc/sys,
// whose protection isolate leaves to ids; as another account it owns that one's
// files and processes. Ranges in subuid and subgid are for such mappings: of
// dockremap for dockerd's userns-remap, of kubelet for pods.
func CheckHost(m idmap.Mapping, files Files) error {
	db, err := files.read()
	if err != nil {
		return err
	}
	users, groups := hostRanges(m.UIDs), hostRanges(m.GIDs)
	switch {
	case slices.ContainsFunc(slices.Concat(users, groups), func(s Span) bool { return s.First == 0 }):
		err = errors.New("id 0 is its root")
	default:
		err = errors.Join(contains(users, db.users, files.Passwd), contains(groups, db.groups, files.Group))
	}
	if err != nil {
		return fmt.Errorf("the id mapping gives the container ids of the host: %w; map ids that no account has, or leave the user namespace out, and isolate gives the container ids of its own", err)
	}
	return nil
}

func hostRanges(ranges []idmap.Range) []Span {
	spans := make([]Span, len(ranges))
	for i, r := range ranges {
		spans[i] = Span{First: r.Host, Count: r.Size}
	}
	return spans
}
