// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"os"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/idmap"
)

// TestAdoptIDsOfTheHost: a mapping with the host's root was adopted, and as that the
// container owned the machine's settings.
func TestAdoptIDsOfTheHost(t *testing.T) {
	t.Parallel()
	files := FilesIn(t.TempDir())
	for path, content := range map[string]string{
		files.Passwd: "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\nbroken\nnobody:x:65534:65534::/:/bin/false\n",
		files.Group:  "root:x:0:\nstaff:x:2000:\n",
		files.SubUID: "dockremap:165536:65536\nkubelet:524288:7208960\nalice:100000:65536\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one := func(id idmap.HostID) idmap.Mapping { return idmap.Contiguous(id, 1) }
	split := func(uid, gid idmap.HostID) idmap.Mapping {
		return idmap.Mapping{UIDs: one(uid).UIDs, GIDs: one(gid).GIDs}
	}
	for _, tt := range []struct {
		name string
		m    idmap.Mapping
		err  string // "" if it may be adopted
	}{
		{"everything", idmap.Contiguous(0, 65536), "id 0"},
		{"the host's root group", split(5000, 0), "id 0"},
		{"root behind others", idmap.Mapping{UIDs: []idmap.Range{{Container: 0, Host: 200000, Size: 1000}, {Container: 1000, Host: 0, Size: 1}}}, "id 0"},
		{"a user", one(1000), `1000 of "alice"`},
		{"a group", split(5000, 2000), `2000 of "staff"`},
		{"a group's number as a user", split(2000, 5000), ""},
		{"all but root", idmap.Contiguous(1, 65536), `"alice"`},
		{"nobody among others, as critest maps", idmap.Contiguous(65000, 65536), ""},
		{"dockerd's userns-remap", idmap.Contiguous(165536, 65536), ""},
		{"a pod", idmap.Contiguous(524288+65536, 65536), ""},
		{"dockerd's userns-remap for a user", idmap.Contiguous(100000, 65536), ""},
		{"an id that nobody has", one(70000), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := CheckHost(tt.m, files)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
		})
	}
}
