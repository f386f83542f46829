// SPDX-License-Identifier: Apache-2.0

package host

import (
	"reflect"
	"testing"
)

func config(t *testing.T, text string) Config {
	t.Helper()
	c, err := ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDropInIsWhatContainerdReads(t *testing.T) {
	t.Parallel()
	for _, h := range []Handler{{Name: "isolate", Type: "io.containerd.isolate.v1"}, {Name: "isolate", Type: "io.containerd.isolate.v1", Path: "/opt/b/shim"}} {
		for _, version := range []int{2, 3, 4} {
			c := config(t, h.DropIn(version))
			if got, ok := c.Handler("isolate"); !ok || !reflect.DeepEqual(got, h) || c.Version() != version {
				t.Errorf("version %d: got %+v, %t, want %+v", version, got, ok, h)
			}
		}
	}
	if got, ok := config(t, "version = 3\n[plugins.x]\n").Handler("isolate"); ok {
		t.Errorf("found %+v where there is none", got)
	}
}

func TestSameBut(t *testing.T) {
	t.Parallel()
	const before = "imports = []\nroot = '/r'\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n"
	const handler = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.isolate]\nruntime_type = 'io.containerd.isolate.v1'\n"
	for _, test := range []struct {
		name, after string
		want        bool
	}{
		{"one more handler", before + handler, true},
		{"and imports", "imports = ['/x']\n" + before[len("imports = []\n"):] + handler, true},
		{"and another", before + handler + "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.x]\n", false},
		{"and not the one that was there", "root = '/r'\n" + handler, false},
		{"and another root", "root = '/q'\n" + before[len("imports = []\nroot = '/r'\n"):] + handler, false},
	} {
		a, b := config(t, before), config(t, test.after)
		if got := a.SameBut(b, "isolate"); got != test.want {
			t.Errorf("%s: got %t, want %t", test.name, got, test.want)
		}
		if !reflect.DeepEqual(a, config(t, before)) || !reflect.DeepEqual(b, config(t, test.after)) {
			t.Errorf("%s: comparing has changed something", test.name)
		}
	}
}
