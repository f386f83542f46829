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
	case slices.ContainsFunc(slices.Concat(users, groups), func(s idmap.Span) bool { return s.First == 0 }):
		err = errors.New("id 0 is its root")
	default:
		err = errors.Join(contains(users, somebody(db.users), files.Passwd), contains(groups, somebody(db.groups), files.Group))
	}
	if err != nil {
		return fmt.Errorf("the id mapping gives the container ids of the host: %w; map ids that no account has, or leave the user namespace out, and isolate gives the container ids of its own", err)
	}
	return nil
}

// overflowID stands for ids that have no number (/proc/sys/kernel/overflowuid). Its
// account owns nothing, and wide ranges of callers have it in them: critest's do.
const overflowID = 65534

// somebody are the accounts but nobody's.
func somebody(accounts []Account) []Account {
	return slices.DeleteFunc(slices.Clone(accounts), func(a Account) bool { return a.ID == overflowID })
}

func hostRanges(ranges []idmap.Range) []idmap.Span {
	spans := make([]idmap.Span, len(ranges))
	for i, r := range ranges {
		spans[i] = r.Span()
	}
	return spans
}
