// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"errors"
	"fmt"
	"slices"

	"github.com/isolate-shim/isolate/idmap"
)

// CheckHost refuses a mapping that a caller has made if it contains ids of the host
// itself: id 0, or an account in passwd or group.
//
// A container with the host's id 0 owns the settings of the machine in /proc/sys,
// which isolate protects by ids alone; with the id of an account it owns the files and
// processes of that account. Ranges in subuid and subgid are meant for callers'
// mappings: dockremap's for dockerd's userns-remap, kubelet's for pods.
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
		err = errors.Join(contains(users, owners(db.users), files.Passwd), contains(groups, owners(db.groups), files.Group))
	}
	if err != nil {
		return fmt.Errorf("the id mapping gives the container ids of the host: %w; map ids that no account has, or leave the user namespace out of the container's spec, and isolate gives it ids of its own", err)
	}
	return nil
}

// overflowID stands for ids that are not mapped (/proc/sys/kernel/overflowuid). Its
// account, nobody, owns nothing, and wide ranges of callers contain it: critest's do.
const overflowID = 65534

// owners returns the accounts without the one of overflowID.
func owners(accounts []account) []account {
	return slices.DeleteFunc(slices.Clone(accounts), func(a account) bool { return a.ID == overflowID })
}

func hostRanges(ranges []idmap.Range) []idmap.Span {
	spans := make([]idmap.Span, len(ranges))
	for i, r := range ranges {
		spans[i] = r.Span()
	}
	return spans
}
