// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"encoding/binary"
	"fmt"
)

// xattrCapability holds the capabilities that a program gives whoever executes
// it (capabilities(7), "File capabilities").
const xattrCapability = "security.capability"

// The layout of struct vfs_cap_data and vfs_ns_cap_data (linux/capability.h):
// little-endian words, the first one revision and flag.
const (
	capRevisionMask  = 0xff000000
	capRevision1     = 0x01000000 // one word of each set
	capRevision2     = 0x02000000 // two
	capRevision3     = 0x03000000 // and the id of a user namespace's root
	capFlagEffective = 0x000001
)

// capability is the value of security.capability.
type capability struct {
	Effective              bool
	Permitted, Inheritable uint64
	// Root is the host id of the root of the user namespaces in which the
	// capabilities count; 0 is the initial one.
	Root uint32
}

// parseCapability reads any revision.
func parseCapability(value []byte) (capability, error) {
	var c capability
	if len(value) < 4 {
		return c, fmt.Errorf("file capability % x: too short", value)
	}
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(value[4*i:]) }
	magic := word(0)
	size := map[uint32]int{capRevision1: 12, capRevision2: 20, capRevision3: 24}[magic&capRevisionMask]
	if len(value) != size || magic&^(capRevisionMask|capFlagEffective) != 0 {
		return c, fmt.Errorf("file capability % x: unknown revision, flag or length", value)
	}
	c.Effective = magic&capFlagEffective != 0
	c.Permitted, c.Inheritable = uint64(word(1)), uint64(word(2))
	if size > 12 {
		c.Permitted |= uint64(word(3)) << 32
		c.Inheritable |= uint64(word(4)) << 32
	}
	if size > 20 {
		c.Root = word(5)
	}
	return c, nil
}

// Bytes returns the value in the revision that the kernel writes for it: 2 in the
// initial user namespace, else 3.
func (c capability) Bytes() []byte {
	magic := uint32(capRevision2)
	if c.Root != 0 {
		magic = capRevision3
	}
	if c.Effective {
		magic |= capFlagEffective
	}
	out := binary.LittleEndian.AppendUint32(nil, magic)
	for _, word := range []uint64{c.Permitted, c.Inheritable, c.Permitted >> 32, c.Inheritable >> 32} {
		out = binary.LittleEndian.AppendUint32(out, uint32(word))
	}
	if c.Root != 0 {
		out = binary.LittleEndian.AppendUint32(out, c.Root)
	}
	return out
}

// capability returns the value with its root moved, and whether that changed it
// and whether its root has no place.
func (s shift) capability(value []byte) (want []byte, moved, left bool, err error) {
	c, err := parseCapability(value)
	if err != nil {
		return nil, false, false, err
	}
	root, at := s.id(c.Root)
	if at != away {
		return value, false, at == outside, nil
	}
	c.Root = root
	return c.Bytes(), true, false, nil
}
