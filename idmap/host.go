// SPDX-License-Identifier: Apache-2.0

package idmap

import "slices"

// HostOnDisk are the ids on disk that stand for the host's own, 0 to 65535, while a
// container runs on its layers. Nobody else has them: accounts and containers are given
// no ids above 2^31 (systemd's UIDS-GIDS.md, [MaxHostID]).
var HostOnDisk = Span{First: 0xFFFE0000, Size: SlotSize}

// HostIDs are the host's ids that have a place in HostOnDisk: those of its root, and of
// all accounts that are not a container's.
var HostIDs = Span{First: 0, Size: SlotSize}

// WithHost returns the mapping of the layers of a container whose own mapping this is:
// with it, the host's programs can write through the container's overlay, which answers
// EOVERFLOW to ids that have no number on disk. What they write is to be given its right
// owner afterwards. It is for a mapping that is one range of ids above the host's own; ok
// is false for any other.
func (m Mapping) WithHost() (_ Mapping, ok bool) {
	if _, ok := m.Contiguous(); !ok || m.UIDs[0].Span().Overlaps(HostIDs) {
		return m, false
	}
	host := Range{Container: ContainerID(HostOnDisk.First), Host: HostIDs.First, Size: HostIDs.Size}
	return Mapping{UIDs: append(slices.Clone(m.UIDs), host), GIDs: append(slices.Clone(m.GIDs), host)}, true
}

// Contiguous returns the host ids of a mapping that [Contiguous] could have made.
func (m Mapping) Contiguous() (_ Span, ok bool) {
	if len(m.UIDs) != 1 || !slices.Equal(m.UIDs, m.GIDs) || m.UIDs[0].Container != 0 {
		return Span{}, false
	}
	return m.UIDs[0].Span(), true
}
