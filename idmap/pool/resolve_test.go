// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/idmap"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	const passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
	configured := []idmap.Span{{First: 1 << 20, Size: 1 << 20}}
	for _, tc := range []struct {
		name                          string
		configured                    []idmap.Span
		subuid, subgid, passwd, group string
		want                          []idmap.Span
		origin                        Origin
		err                           string   // part of the error
		warn                          []string // parts of the warnings
	}{
		{
			name: "nothing there", want: []idmap.Span{defaultSpan}, origin: fromDefault,
		},
		{
			name: "others out of the way", passwd: passwd,
			subuid: "alice:100000:65536\nlxd:1000000:1000000000\n", subgid: "alice:100000:65536\n",
			want: []idmap.Span{defaultSpan}, origin: fromDefault,
		},
		{
			name:   "lines of the user",
			subuid: "# comment\n\nisolate:655360:65536\nisolate:131072:131072\n", subgid: "isolate:131072:131072\nisolate:655360:65536\n",
			want: []idmap.Span{{First: 131072, Size: 131072}, {First: 655360, Size: 65536}}, origin: fromSubIDs,
		},
		{
			name: "configuration wins over lines", configured: configured,
			subuid: "isolate:655360:65536\n", subgid: "isolate:655360:65536\n",
			want: configured, origin: fromConfig,
		},
		{
			name: "configuration may equal lines", configured: []idmap.Span{{First: 655360, Size: 65536}},
			subuid: "isolate:655360:65536\n", subgid: "isolate:655360:65536\n",
			want: []idmap.Span{{First: 655360, Size: 65536}}, origin: fromConfig,
		},
		{
			name: "subuid without subgid", subuid: "isolate:655360:65536\n",
			err: `user "isolate" has 655360-720895 in`,
		},
		{
			name: "overlap by name and line", configured: configured,
			subuid: "bob:100000:65536\nlxd:1000000:1000000000\n",
			err:    `overlaps ids 1000000-1000999999 of "lxd"`,
		},
		{
			name: "overlap of default", subgid: "big:1:2000000000\n",
			err: `subgid line 1`,
		},
		{
			name: "account inside", configured: configured, passwd: passwd + "ldapish:x:1500000:100::/:/bin/sh\n",
			err: `contains id 1500000 of "ldapish"`,
		},
		{
			name: "group inside", configured: configured, group: "grp:x:1048576:\n",
			err: `group line 1`,
		},
		{
			name: "somebody else's broken lines", subuid: "alice:100000\nalice:banana:1\nisolate:655360:65536\n", subgid: "isolate:655360:65536\n:1:1\n",
			passwd: passwd + "half:x\n", group: "g:x:many:\n",
			want: []idmap.Span{{First: 655360, Size: 65536}}, origin: fromSubIDs,
			warn: []string{"subuid line 1", "subuid line 2", "subgid line 2", "passwd line 3", "group line 1"},
		},
		{
			name: "a broken line of the user", subuid: "alice:100000:65536\nisolate:banana:1\n",
			err: "line 2",
		},
		{
			name: "a broken line of the user, and ids configured", configured: configured, subuid: "isolate:1\n",
			err: "line 1",
		},
		{
			name: "unusable configuration", configured: []idmap.Span{{First: 1, Size: 10}},
			err: "holds no whole range",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			files := FilesIn(t.TempDir())
			for path, content := range map[string]string{
				files.SubUID: tc.subuid, files.SubGID: tc.subgid, files.Passwd: tc.passwd, files.Group: tc.group,
			} {
				if content == "" {
					continue
				}
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Resolve(tc.configured, files)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want one with %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.Spans, tc.want) || got.Origin != tc.origin {
				t.Errorf("got %v from %q, want %v from %q", got.Spans, got.Origin, tc.want, tc.origin)
			}
			if !slices.EqualFunc(got.Warnings, tc.warn, strings.Contains) {
				t.Errorf("warnings are %q", got.Warnings)
			}
		})
	}
}

func TestResolveUnreadable(t *testing.T) {
	t.Parallel()
	files := FilesIn(t.TempDir())
	if err := os.Mkdir(files.SubUID, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Resolve(nil, files); err == nil || !strings.Contains(err.Error(), filepath.Base(files.SubUID)) {
		t.Errorf("error %v does not name the file", err)
	}
}

func FuzzParseSubIDs(f *testing.F) {
	for _, s := range []string{"alice:100000:65536\n", "1000:1:1", "#x\n\na:4294967295:1\n", "a:b:c", "::", "a:1:4294967295", "a:0:0\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		ids, _, err := parseSubIDs(in)
		if err != nil {
			return
		}
		for _, id := range ids {
			if id.Span.Size == 0 || id.Span.End() > 1<<32 || id.Owner == "" || id.Line < 1 || id.Line > strings.Count(in, "\n")+1 {
				t.Errorf("%q gave impossible line %+v", in, id)
			}
		}
	})
}

func FuzzParseAccounts(f *testing.F) {
	for _, s := range []string{"root:x:0:0:root:/root:/bin/sh\n", "+::::::\n", "x:y", "a:x:4294967296:", "g:x:5:a,b\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		accounts, _, err := parseAccounts(in)
		if err != nil {
			return
		}
		for _, a := range accounts {
			if a.Line < 1 || a.Line > strings.Count(in, "\n")+1 {
				t.Errorf("%q gave impossible line %+v", in, a)
			}
		}
	})
}
