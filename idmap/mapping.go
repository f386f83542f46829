// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxExtents is the number of ranges the kernel accepts in one uid_map or
// gid_map (user_namespaces(7), since Linux 4.15).
const maxExtents = 340

// maxEnd is the largest exclusive end of a range: id 2^32-1 is reserved as "no
// id" and cannot be mapped (kernel/user_namespace.c: map_write).
const maxEnd = 1<<32 - 1

// HostID is a user or group id as the initial user namespace sees it.
type HostID uint32

// ContainerID is a user or group id as processes inside the user namespace see
// it.
type ContainerID uint32

// Range maps Size consecutive container ids, from Container on, to as many
// host ids from Host on.
type Range struct {
	Container ContainerID `json:"container"`
	Host      HostID      `json:"host"`
	Size      uint32      `json:"size"`
}

// String returns the range in the notation of ctr --uidmap and of the
// containerd mount options: container:host:size.
func (r Range) String() string {
	return fmt.Sprintf("%d:%d:%d", r.Container, r.Host, r.Size)
}

// Span returns the host ids.
func (r Range) Span() Span { return Span{First: r.Host, Size: r.Size} }

// Mapping is the id mapping of one user namespace.
type Mapping struct {
	UIDs []Range `json:"uids"`
	GIDs []Range `json:"gids"`
}

// Owner is a pair of host ids, usually of a container's root.
type Owner struct {
	UID HostID `json:"uid"`
	GID HostID `json:"gid"`
}

// Contiguous returns the mapping of container ids 0 to size-1, users and
// groups alike, to the host ids from base on.
func Contiguous(base HostID, size uint32) Mapping {
	r := Range{Container: 0, Host: base, Size: size}
	return Mapping{UIDs: []Range{r}, GIDs: []Range{r}}
}

// Equal reports whether both mappings consist of the same ranges in the same
// order.
func (m Mapping) Equal(o Mapping) bool {
	return slices.Equal(m.UIDs, o.UIDs) && slices.Equal(m.GIDs, o.GIDs)
}

// RootUID returns the host uid of container uid 0, and whether there is one.
func (m Mapping) RootUID() (HostID, bool) { return m.UIDToHost(0) }

// RootGID returns the host gid of container gid 0, and whether there is one.
func (m Mapping) RootGID() (HostID, bool) { return m.GIDToHost(0) }

// Root returns the host ids of the container's root; ok is false unless both
// uid 0 and gid 0 are mapped.
func (m Mapping) Root() (_ Owner, ok bool) {
	uid, okUID := m.RootUID()
	gid, okGID := m.RootGID()
	return Owner{UID: uid, GID: gid}, okUID && okGID
}

// UIDToHost returns the host uid of a container uid, and whether it is mapped.
func (m Mapping) UIDToHost(id ContainerID) (HostID, bool) { return toHost(m.UIDs, id) }

// GIDToHost returns the host gid of a container gid, and whether it is mapped.
func (m Mapping) GIDToHost(id ContainerID) (HostID, bool) { return toHost(m.GIDs, id) }

// UIDToContainer returns the container uid of a host uid, and whether it is
// mapped.
func (m Mapping) UIDToContainer(id HostID) (ContainerID, bool) { return toContainer(m.UIDs, id) }

func toHost(ranges []Range, id ContainerID) (HostID, bool) {
	for _, r := range ranges {
		if id >= r.Container && uint32(id-r.Container) < r.Size {
			return r.Host + HostID(id-r.Container), true
		}
	}
	return 0, false
}

func toContainer(ranges []Range, id HostID) (ContainerID, bool) {
	for _, r := range ranges {
		if id >= r.Host && uint32(id-r.Host) < r.Size {
			return r.Container + ContainerID(id-r.Host), true
		}
	}
	return 0, false
}

// Valid returns an error if the kernel would refuse the mapping: no range, too
// many of them, an empty range, one that runs past the last id, or two that
// overlap on either side (user_namespaces(7)).
func (m Mapping) Valid() error {
	return errors.Join(validRanges("uid", m.UIDs), validRanges("gid", m.GIDs))
}

func validRanges(kind string, ranges []Range) error {
	if len(ranges) == 0 {
		return fmt.Errorf("%s mapping is empty", kind)
	}
	if len(ranges) > maxExtents {
		return fmt.Errorf("%s mapping has %d ranges, the kernel takes at most %d", kind, len(ranges), maxExtents)
	}
	for _, r := range ranges {
		switch {
		case r.Size == 0:
			return fmt.Errorf("%s range %s is empty", kind, r)
		case uint64(r.Container)+uint64(r.Size) > maxEnd:
			return fmt.Errorf("%s range %s runs past the last container id", kind, r)
		case uint64(r.Host)+uint64(r.Size) > maxEnd:
			return fmt.Errorf("%s range %s runs past the last host id", kind, r)
		}
	}
	if a, b, ok := overlap(ranges, func(r Range) uint64 { return uint64(r.Container) }); ok {
		return fmt.Errorf("%s ranges %s and %s overlap in container ids", kind, a, b)
	}
	if a, b, ok := overlap(ranges, func(r Range) uint64 { return uint64(r.Host) }); ok {
		return fmt.Errorf("%s ranges %s and %s overlap in host ids", kind, a, b)
	}
	return nil
}

// overlap returns two of the ranges that share an id on the side that first
// selects.
func overlap(ranges []Range, first func(Range) uint64) (a, b Range, ok bool) {
	sorted := slices.SortedFunc(slices.Values(ranges), func(x, y Range) int {
		return cmp.Compare(first(x), first(y))
	})
	for i := 1; i < len(sorted); i++ {
		if first(sorted[i-1])+uint64(sorted[i-1].Size) > first(sorted[i]) {
			return sorted[i-1], sorted[i], true
		}
	}
	return Range{}, Range{}, false
}

// String returns the mapping for a log line.
func (m Mapping) String() string {
	list := func(ranges []Range) string {
		s := make([]string, len(ranges))
		for i, r := range ranges {
			s[i] = r.String()
		}
		return strings.Join(s, ",")
	}
	if slices.Equal(m.UIDs, m.GIDs) {
		return list(m.UIDs)
	}
	return "uid " + list(m.UIDs) + " gid " + list(m.GIDs)
}
