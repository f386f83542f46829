// SPDX-License-Identifier: Apache-2.0

package member

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/ns"
)

var (
	// ErrForeign says that nothing proves a process to be the container's.
	ErrForeign = errors.New("nothing proves that it is the container's")

	// ErrUnconfined says that a container's process has other ids than planned.
	ErrUnconfined = errors.New("its ids are not those that isolate has planned")
)

// Container is what is known of a container whatever any pid says.
type Container struct {
	// Mapping is its id mapping.
	Mapping idmap.Mapping
	// Cgroups are the directories of its cgroups, one in each hierarchy; none if they
	// are not known. Runtimes leave out some hierarchies of version 1.
	Cgroups []string
	// Userns is its user namespace, and PIDs its pid namespace; zero if they are not
	// known. It may share both with others of its pod.
	Userns ns.ID
	PIDs   ns.ID
}

// traits is what a process shows of itself.
type traits struct {
	// users are its user namespace and those above it, up to the one below ours;
	// empty in our own.
	users []ns.ID
	// mapping is its user namespace's, in our ids.
	mapping idmap.Mapping
	// pids are its pid namespace and those above it, up to the one below ours; empty
	// in our own.
	pids []ns.ID
	// numbers are its pids, from our pid namespace to its own (NSpid of
	// proc_pid_status(5)).
	numbers []int
	// cgroups tells whether it is in a cgroup of the container or below one.
	cgroups membership
	// child tells that it is a child of this process.
	child bool
}

// membership is what cgroups tell.
type membership int

const (
	unknown membership = iota // the container's are not known, or do not exist
	inside                    // of one of the container's, or one below
	elsewhere
)

// foreign tells why a process is not proved to be the container's, "" if it is.
func (c Container) foreign(pid int, t traits) string {
	switch {
	case len(t.numbers) == 0 || t.numbers[0] != pid:
		return fmt.Sprintf("it is number %v in other pid namespaces", t.numbers)
	case t.cgroups == elsewhere:
		return "it is in none of the container's cgroups"
	case t.child && t.cgroups == inside:
		// Children of the shim are what runtimes leave to it: processes of its
		// containers, of which this one has the cgroup.
		return ""
	case len(t.users) == 0:
		return "it is in the host's user namespace"
	case len(t.pids) == 0:
		return "it is in the host's pid namespace"
	case c.Userns != (ns.ID{}) && !slices.Contains(t.users, c.Userns):
		return "it is in a user namespace that is not the container's"
	case c.PIDs != (ns.ID{}) && !slices.Contains(t.pids, c.PIDs):
		return "it is in a pid namespace that is not the container's"
	case c.Userns != (ns.ID{}) && empty(t.mapping): // below the container's, and nobody has set it up yet
		return ""
	case !within(t.mapping, c.Mapping): // a known namespace as well: its number is another's when it is gone
		return fmt.Sprintf("it has the ids %s, the container %s", t.mapping, c.Mapping)
	}
	return ""
}

// unconfined tells what of a container's first process is not as it was planned,
// "" if all is. ownPIDs is set if it is to be number 1.
func (c Container) unconfined(t traits, ownPIDs bool) string {
	switch {
	case len(t.users) == 0:
		return "it is in the host's user namespace"
	case c.Userns != (ns.ID{}) && t.users[0] != c.Userns:
		return "it is in another user namespace"
	case !same(t.mapping.UIDs, c.Mapping.UIDs) || !same(t.mapping.GIDs, c.Mapping.GIDs):
		return fmt.Sprintf("it has the ids %s instead of %s", t.mapping, c.Mapping)
	case len(t.pids) == 0:
		return "it is in the host's pid namespace"
	case ownPIDs && t.numbers[len(t.numbers)-1] != 1:
		return fmt.Sprintf("it is number %d in its pid namespace", t.numbers[len(t.numbers)-1])
	}
	return ""
}

// same tells whether two lists of ranges map the same. The kernel sorts long ones,
// and a runtime may split or join ranges.
func same(a, b []idmap.Range) bool { return slices.Equal(canonical(a), canonical(b)) }

// canonical returns the shortest list of ranges that maps the same, in order.
func canonical(ranges []idmap.Range) []idmap.Range {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b idmap.Range) int { return cmp.Compare(a.Container, b.Container) })
	out := sorted[:0]
	for _, r := range sorted {
		if n := len(out); n > 0 {
			last := &out[n-1]
			if uint64(last.Container)+uint64(last.Size) == uint64(r.Container) && uint64(last.Host)+uint64(last.Size) == uint64(r.Host) {
				last.Size += r.Size
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// within tells whether a mapping has ids of another only, and some at all.
func within(m, of idmap.Mapping) bool {
	return covered(m.UIDs, of.UIDs) && covered(m.GIDs, of.GIDs)
}

func empty(m idmap.Mapping) bool { return len(m.UIDs) == 0 && len(m.GIDs) == 0 }

func covered(ranges, by []idmap.Range) bool {
	for _, r := range ranges {
		if !slices.ContainsFunc(by, func(b idmap.Range) bool {
			return r.Host >= b.Host && r.Span().End() <= b.Span().End()
		}) {
			return false
		}
	}
	return len(ranges) > 0
}
