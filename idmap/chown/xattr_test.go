// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"

	"github.com/isolate-shim/isolate/idmap"
)

// The values are those that setcap and setfacl wrote on ext4.
const (
	hexRaw    = "0100000200200000000000000000000000000000"         // cap_net_raw=ep
	hexRawOfA = "010000030020000000000000000000000000000000000070" // of the root 0x70000000
	hexRawOfU = "0100000300200000000000000000000000000000e8030070" // of 0x70000000+1000
	hexACL    = "0200000001000600ffffffff02000600e803000004000400ffffffff080005002100000010000700ffffffff20000400ffffffff"
	hexACLOfA = "0200000001000600ffffffff02000600e803007004000400ffffffff080005002100007010000700ffffffff20000400ffffffff"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	toA   = newShift([]idmap.Span{{Size: 65536}}, idmap.Span{First: 0x70000000, Size: 65536})
	fromA = newShift([]idmap.Span{{First: 0x70000000, Size: 65536}}, idmap.Span{Size: 65536})
	aToB  = newShift([]idmap.Span{{Size: 65536}, {First: 0x70000000, Size: 65536}}, idmap.Span{First: 0x70010000, Size: 65536})
)

func TestShiftCapability(t *testing.T) {
	t.Parallel()
	const rawOfB = "010000030020000000000000000000000000000000000170"
	for _, test := range []struct {
		name        string
		shift       shift
		value, want string
		moved, left bool
		fails       bool
	}{
		{name: "to a container", shift: toA, value: hexRaw, want: hexRawOfA, moved: true},
		{name: "back", shift: fromA, value: hexRawOfA, want: hexRaw, moved: true},
		{name: "to another container", shift: aToB, value: hexRawOfA, want: rawOfB, moved: true},
		{name: "done", shift: toA, value: hexRawOfA, want: hexRawOfA},
		{name: "of a container inside", shift: fromA, value: hexRawOfU, want: "0100000300200000000000000000000000000000e8030000", moved: true},
		{name: "of one inside an image", shift: toA, value: "0100000300200000000000000000000000000000e8030000", want: hexRawOfU, moved: true},
		{name: "of a stranger", shift: toA, value: "010000030020000000000000000000000000000000000171", want: "010000030020000000000000000000000000000000000171", left: true},
		{name: "revision 1", shift: toA, value: "010000010020000000000000", want: hexRawOfA, moved: true},
		{name: "empty", shift: toA, fails: true},
		{name: "short", shift: toA, value: hexRaw[:38], fails: true},
		{name: "revision 4", shift: toA, value: "0100000400200000000000000000000000000000", fails: true},
		{name: "unknown flag", shift: toA, value: "0300000200200000000000000000000000000000", fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, moved, left, err := test.shift.capability(unhex(t, test.value))
			if hex.EncodeToString(got) != test.want || moved != test.moved || left != test.left || (err != nil) != test.fails {
				t.Errorf("got %x, moved %v, left %v, %v", got, moved, left, err)
			}
		})
	}
}

func TestShiftACL(t *testing.T) {
	t.Parallel()
	const stranger = "0200000001000600ffffffff02000600a086010004000400ffffffff10000700ffffffff20000400ffffffff"
	for _, test := range []struct {
		name        string
		shift       shift
		value, want string
		moved, left bool
		fails       bool
	}{
		{name: "to a container", shift: toA, value: hexACL, want: hexACLOfA, moved: true},
		{name: "back", shift: fromA, value: hexACLOfA, want: hexACL, moved: true},
		{name: "done", shift: toA, value: hexACLOfA, want: hexACLOfA},
		{name: "of a stranger", shift: toA, value: stranger, want: stranger, left: true},
		{name: "without entries", shift: toA, value: "02000000", want: "02000000"},
		{name: "empty", shift: toA, fails: true},
		{name: "cut off", shift: toA, value: hexACL[:len(hexACL)-2], fails: true},
		{name: "version 1", shift: toA, value: "01000000", fails: true},
		{name: "unknown tag", shift: toA, value: "0200000003000600ffffffff", fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, moved, left, err := test.shift.acl(unhex(t, test.value))
			if hex.EncodeToString(got) != test.want || moved != test.moved || left != test.left || (err != nil) != test.fails {
				t.Errorf("got %x, moved %v, left %v, %v", got, moved, left, err)
			}
		})
	}
}

func FuzzCapability(f *testing.F) {
	for _, s := range []string{hexRaw, hexRawOfA, "010000010020000000000000", ""} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		c, err := parseCapability(value)
		if err != nil {
			return
		}
		again, err := parseCapability(c.Bytes())
		if err != nil || again != c {
			t.Errorf("%x is %+v, which is written as %x and read as %+v, %v", value, c, c.Bytes(), again, err)
		}
		there, moved, _, err := toA.capability(value)
		if err != nil || !moved {
			return
		}
		back, _, _, err := fromA.capability(there)
		if err != nil || !bytes.Equal(back, c.Bytes()) {
			t.Errorf("%x came back as %x, %v", value, back, err)
		}
	})
}

func FuzzACL(f *testing.F) {
	for _, s := range []string{hexACL, hexACLOfA, "02000000", ""} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		acl, err := parseACL(value)
		if err != nil {
			return
		}
		if !bytes.Equal(encodeACL(acl), value) {
			t.Errorf("%x is written as %x", value, encodeACL(acl))
		}
		there, moved, _, err := toA.acl(value)
		if err != nil {
			t.Fatalf("%x can be read but not moved: %v", value, err)
		}
		if !moved && !bytes.Equal(there, value) {
			t.Errorf("%x was not moved and is %x", value, there)
		}
		if again, moved, _, err := toA.acl(there); moved || err != nil || !bytes.Equal(again, there) {
			t.Errorf("%x is moved twice: %x, %v", value, again, err)
		}
	})
}

func TestShiftInode(t *testing.T) {
	t.Parallel()
	capability := []byte(nil)
	for _, test := range []struct {
		name  string
		in    attributes
		want  attributes
		moved bool
		plain bool
	}{
		{name: "file", in: attributes{Mode: 0o100644, UID: 1, GID: 2}, want: attributes{Mode: 0o100644, UID: 0x70000001, GID: 0x70000002}, moved: true, plain: true},
		{name: "half done", in: attributes{Mode: 0o100644, UID: 0x70000001, GID: 2}, want: attributes{Mode: 0o100644, UID: 0x70000001, GID: 0x70000002}, moved: true, plain: true},
		{name: "half outside", in: attributes{Mode: 0o100644, UID: 99999, GID: 2}, want: attributes{Mode: 0o100644, UID: 99999, GID: 0x70000002}, moved: true, plain: true},
		{name: "outside", in: attributes{Mode: 0o104755, UID: 99999, GID: 99999}, want: attributes{Mode: 0o104755, UID: 99999, GID: 99999}, plain: false},
		{name: "done", in: attributes{Mode: 0o100644, UID: 0x70000000, GID: 0x70000000}, want: attributes{Mode: 0o100644, UID: 0x70000000, GID: 0x70000000}, plain: true},
		{name: "setuid", in: attributes{Mode: 0o104755}, want: attributes{Mode: 0o104755, UID: 0x70000000, GID: 0x70000000}, moved: true},
		{name: "setgid directory", in: attributes{Mode: 0o042775}, want: attributes{Mode: 0o042775, UID: 0x70000000, GID: 0x70000000}, moved: true, plain: true},
		{name: "sticky directory", in: attributes{Mode: 0o041777}, want: attributes{Mode: 0o041777, UID: 0x70000000, GID: 0x70000000}, moved: true, plain: true},
		{name: "capability", in: attributes{Mode: 0o100755, Capability: unhex(t, hexRaw)}, want: attributes{Mode: 0o100755, UID: 0x70000000, GID: 0x70000000, Capability: unhex(t, hexRawOfA)}, moved: true},
		{name: "capability of a file outside", in: attributes{Mode: 0o100755, UID: 99999, GID: 99999, Capability: unhex(t, hexRaw)}, want: attributes{Mode: 0o100755, UID: 99999, GID: 99999, Capability: unhex(t, hexRawOfA)}, moved: true},
		{name: "unreadable capability", in: attributes{Mode: 0o100755, Capability: []byte("?")}, want: attributes{Mode: 0o100755, UID: 0x70000000, GID: 0x70000000, Capability: capability}, moved: true, plain: true},
		{name: "default ACL", in: attributes{Mode: 0o040755, Default: unhex(t, hexACL)}, want: attributes{Mode: 0o040755, UID: 0x70000000, GID: 0x70000000, Default: unhex(t, hexACLOfA)}, moved: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v := toA.inode(test.in)
			if !reflect.DeepEqual(v.want, test.want) || v.moved() != test.moved || v.plain() != test.plain {
				t.Errorf("got %+v, moved %v, plain %v", v, v.moved(), v.plain())
			}
			again := toA.inode(v.want)
			if again.moved() || !reflect.DeepEqual(again.want, v.want) {
				t.Errorf("moved twice: %+v", again)
			}
		})
	}
}
