// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"encoding/binary"
	"fmt"
)

// The two ACLs of a file (acl(5)); the default one is of directories only.
const (
	xattrAccess  = "system.posix_acl_access"
	xattrDefault = "system.posix_acl_default"
)

// The layout of an ACL (linux/posix_acl_xattr.h): a word with the version, then
// entries of a tag, permissions and an id, little-endian.
const (
	aclVersion   = 2
	aclHeader    = 4
	aclEntrySize = 8
	aclUser      = 0x02
	aclGroup     = 0x08
)

// aclTags are all the tags there are: user_obj, user, group_obj, group, mask and
// other.
var aclTags = map[uint16]bool{0x01: true, aclUser: true, 0x04: true, aclGroup: true, 0x10: true, 0x20: true}

// aclEntry is an entry of an ACL. ID means something with the tags of named users
// and groups only.
type aclEntry struct {
	Tag, Perm uint16
	ID        uint32
}

func (e aclEntry) named() bool { return e.Tag == aclUser || e.Tag == aclGroup }

// parseACL reads the value of one of the attributes.
func parseACL(value []byte) ([]aclEntry, error) {
	if len(value) < aclHeader || (len(value)-aclHeader)%aclEntrySize != 0 {
		return nil, fmt.Errorf("ACL of %d bytes: cut off", len(value))
	}
	if v := binary.LittleEndian.Uint32(value); v != aclVersion {
		return nil, fmt.Errorf("ACL of version %d: unknown", v)
	}
	var acl []aclEntry
	for b := value[aclHeader:]; len(b) > 0; b = b[aclEntrySize:] {
		e := aclEntry{
			Tag:  binary.LittleEndian.Uint16(b),
			Perm: binary.LittleEndian.Uint16(b[2:]),
			ID:   binary.LittleEndian.Uint32(b[4:]),
		}
		if !aclTags[e.Tag] {
			return nil, fmt.Errorf("ACL entry with tag %#x: unknown", e.Tag)
		}
		acl = append(acl, e)
	}
	return acl, nil
}

// encodeACL is the reverse of parseACL.
func encodeACL(acl []aclEntry) []byte {
	out := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range acl {
		out = binary.LittleEndian.AppendUint16(out, e.Tag)
		out = binary.LittleEndian.AppendUint16(out, e.Perm)
		out = binary.LittleEndian.AppendUint32(out, e.ID)
	}
	return out
}

// acl returns the value with the ids of named users and groups moved, and whether
// that changed it and whether an id has no place.
func (s shift) acl(value []byte) (want []byte, moved, left bool, err error) {
	acl, err := parseACL(value)
	if err != nil {
		return nil, false, false, err
	}
	for i, e := range acl {
		if !e.named() {
			continue
		}
		id, at := s.id(e.ID)
		acl[i].ID = id
		moved = moved || at == away
		left = left || at == outside
	}
	return encodeACL(acl), moved, left, nil
}
