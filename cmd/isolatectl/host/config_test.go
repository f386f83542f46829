// SPDX-License-Identifier: Apache-2.0

package host

import (
	"reflect"
	"strings"
	"testing"
)

// The same handlers as containerd prints them, by version of the file.
func TestHandlers(t *testing.T) {
	t.Parallel()
	body := func(version, plugin string) string {
		return "version = " + version + "\n" + strings.ReplaceAll(`
[plugins.P.containerd]
default_runtime_name = 'runc'
snapshotter = 'old'
[plugins.P.containerd.runtimes.isolate]
runtime_type = 'io.containerd.isolate.v1'
pod_annotations = ['io.containerd.isolate.*', 3]
[plugins.P.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
snapshotter = 'native'
options = { SystemdCgroup = true, BinaryName = '' }
[plugins.P.containerd.runtimes]
odd = 3
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'new'
`, "P", "'"+plugin+"'")
	}
	both := func(snapshotter string) []Handler {
		return []Handler{
			{Name: "isolate", Type: "io.containerd.isolate.v1", Snapshotter: snapshotter, Annotations: []string{"io.containerd.isolate.*"}},
			{Name: "runc", Type: "io.containerd.runc.v2", Snapshotter: "native", Options: map[string]any{"SystemdCgroup": true, "BinaryName": ""}},
		}
	}
	for _, c := range []struct {
		name, text string
		off        bool
		want       []Handler
	}{
		{"version 2", body("2", criV2), false, both("old")},
		{"version 3", body("3", criV3), false, both("new")},
		{"version 4", body("4", criV3), false, both("new")},
		{"old table in version 3", body("3", criV2), false, nil},
		{"new table in version 2", body("2", criV3), false, nil},
		{"migrated", body("3", criV3) + "\n[plugins.'" + criV2 + "'.containerd.runtimes.isolate]\nruntime_type = 'io.containerd.isolate.v1'\n", false, both("new")},
		{"switched off", "version = 3\ndisabled_plugins = ['io.containerd.grpc.v1.cri']", true, nil},
		{"short name", "version = 2\ndisabled_plugins = ['cri']", true, nil},
	} {
		got := config(t, c.text)
		if handlers := got.Handlers(); !reflect.DeepEqual(handlers, c.want) || got.NoCRI() != c.off {
			t.Errorf("%s: got  %+v\nwant %+v", c.name, handlers, c.want)
		}
		// In the file it is in each case that has it at all.
		if n := len(got.Written()); (n > 0) != strings.Contains(c.text, ".isolate]") {
			t.Errorf("%s: the file has %d", c.name, n)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("containerd\x00--root\x00/x", []byte("root = '/r'"))
	f.Add("containerd\x00-c=/x", []byte("[plugins.a.containerd.runtimes.x]\noptions = 3"))
	f.Add("", []byte("version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.x]\nruntime_type = 'io.containerd.isolate.v1'\npod_annotations = ['[']\noptions = 3"))
	f.Add("", []byte("[plugins.'io.containerd.grpc.v1.cri'.containerd]\nruntimes = [1]"))
	f.Fuzz(func(_ *testing.T, args string, text []byte) {
		c, err := ParseConfig(text)
		if err != nil {
			return
		}
		Containerd{Process: Process{Args: strings.Split(args, "\x00")}}.with(c)
		c.Handlers()
		c.Written()
		c.SameBut(c, "x")
		Version(args)
	})
}

// TestProgramsOfContainerd: what containerd puts before its PATH was not searched.
func TestProgramsOfContainerd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"", "/opt/containerd/bin"},
		{"[plugins.\"io.containerd.internal.v1.opt\"]\npath = \"/srv/opt\"\n", "/srv/opt/bin"},
		{"disabled_plugins = [\"io.containerd.internal.v1.opt\"]\n", ""},
		{"disabled_plugins = [\"opt\"]\n", ""},
	} {
		config, err := ParseConfig([]byte(c.text))
		if err != nil {
			t.Fatal(err)
		}
		if got := config.optDir(); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}
