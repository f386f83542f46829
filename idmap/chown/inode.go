// SPDX-License-Identifier: Apache-2.0

package chown

// The file types and special bits of a mode (inode(7)), here so that this file
// stays free of system calls.
const (
	modeType    = 0o170000
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeSymlink = 0o120000
	modeChar    = 0o020000
	modeSetID   = 0o6000
	modePerm    = 0o7777
)

// attributes are what an inode has of what depends on ids. The three values of
// extended attributes are nil if it has none.
type attributes struct {
	Mode       uint32 `json:"mode"`
	UID        uint32 `json:"uid"`
	GID        uint32 `json:"gid"`
	Capability []byte `json:"capability,omitempty"`
	Access     []byte `json:"access,omitempty"`
	Default    []byte `json:"default,omitempty"`
}

// verdict is what becomes of an inode.
type verdict struct {
	was, want attributes
	// owner, capability, access and dflt tell what has to be changed.
	owner, capability, access, dflt bool
	// left is set if an id of it is in no span.
	left bool
	// strange are values that cannot be read, which the kernel does not read
	// either.
	strange []error
}

// moved tells whether anything has to be changed.
func (v verdict) moved() bool { return v.owner || v.capability || v.access || v.dflt }

// plain tells whether a chown is all it takes: it neither takes anything away nor
// is anything to be changed besides.
func (v verdict) plain() bool {
	setID := v.want.Mode&modeSetID != 0 && v.want.Mode&modeType != modeDir
	return !v.capability && !v.access && !v.dflt && v.want.Capability == nil && !setID
}

// inode decides what becomes of an inode. A chown of anything but a directory
// clears its set-id bits and removes its capabilities, whoever does it
// (fs/open.c: chown_common; security/commoncap.c: cap_inode_killpriv).
func (s shift) inode(a attributes) verdict {
	v := verdict{was: a, want: a}
	for _, id := range []*uint32{&v.want.UID, &v.want.GID} {
		var at place
		*id, at = s.id(*id)
		v.owner = v.owner || at == away
		v.left = v.left || at == outside
	}
	for _, x := range []struct {
		value, want *[]byte
		move        func([]byte) (want []byte, moved, left bool, err error)
		moved       *bool
	}{
		{&a.Capability, &v.want.Capability, s.capability, &v.capability},
		{&a.Access, &v.want.Access, s.acl, &v.access},
		{&a.Default, &v.want.Default, s.acl, &v.dflt},
	} {
		if *x.value == nil {
			continue
		}
		var left bool
		var err error
		*x.want, *x.moved, left, err = x.move(*x.value)
		v.left = v.left || left
		if err != nil {
			v.strange = append(v.strange, err)
		}
	}
	return v
}
