// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"os"
	"reflect"
	"testing"
)

func TestParseStatus(t *testing.T) {
	t.Parallel()
	const good = "Name:\ta\\nUid:\t1\nUmask:\t0022\nState:\tZ (zombie)\nTgid:\t7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nFDSize:\t64\nGroups:\t9 4294967295 \nNStgid:\t7\n"
	s, err := ParseStatus([]byte(good))
	want := Status{Name: `a\nUid:	1`, State: 'Z', UIDs: []uint32{1, 2, 3, 4}, GIDs: []uint32{5, 6, 7, 8, 9, 4294967295}}
	if err != nil || !reflect.DeepEqual(s, want) {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{
		"", "Name:\tsh\n", "Groups:\t\n",
		"State:\tR\nUid:\t1\t2\t3\nGid:\t1\t2\t3\t4\nGroups:\t\n",
		"State:\tR\nUid:\t1\t2\t3\t4294967296\nGid:\t1\t2\t3\t4\nGroups:\t\n",
		"State:\tR\nUid:\t1\t2\t3\t4\nGid:\t1\t2\t3\t4\nGroups:\tx\n",
	} {
		if s, err := ParseStatus([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, s)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Fuzz(func(t *testing.T, content []byte) {
		s, err := ParseStatus(content)
		if err == nil && (s.State == 0 || len(s.UIDs) != 4 || len(s.GIDs) < 4) || err != nil && !reflect.DeepEqual(s, Status{}) {
			t.Errorf("%+v, %v", s, err)
		}
	})
}
