// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"os"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestImageNodeOfTheConsole: the rules that clients send let a device node of
// an image open the machine's console.
func TestImageNodeOfTheConsole(t *testing.T) {
	t.Parallel()
	allow := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(5), Minor: number(1), Access: "rwm"}
	other := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(5), Minor: number(0), Access: "rwm"}
	asked := []Node{{"c", 5, 1}}
	tests := []struct {
		name   string
		path   string // of the group
		nodes  []Node
		rules  []specs.LinuxDeviceCgroup
		want   int // rules for the console
		allows bool
	}{
		{name: "what clients send", path: "/default/a", rules: []specs.LinuxDeviceCgroup{allow, other}, want: 1},
		{name: "nothing said", path: "/default/a", rules: []specs.LinuxDeviceCgroup{other}, want: 1},
		{name: "repeated", path: "/default/a", rules: []specs.LinuxDeviceCgroup{other, console}, want: 1},
		{name: "crun with the systemd driver", path: "system.slice:isolate:a", rules: []specs.LinuxDeviceCgroup{allow, other}},
		{name: "crun's own path with the systemd driver", rules: []specs.LinuxDeviceCgroup{allow, other}},
		{name: "asked for", path: "/default/a", nodes: asked, rules: []specs.LinuxDeviceCgroup{allow, other}, want: 1, allows: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &specs.Spec{Linux: &specs.Linux{CgroupsPath: tt.path, Resources: &specs.LinuxResources{Devices: tt.rules}}}
			if _, err := deviceRules(s, &Plan{Nodes: tt.nodes}); err != nil {
				t.Fatal(err)
			}
			var got []specs.LinuxDeviceCgroup
			for _, r := range s.Linux.Resources.Devices {
				if onConsole(r) {
					got = append(got, r)
				}
			}
			if len(got) != tt.want || tt.want > 0 && got[0].Allow != tt.allows {
				t.Errorf("rules for the console: %+v", got)
			}
			if !slices.ContainsFunc(s.Linux.Resources.Devices, func(r specs.LinuxDeviceCgroup) bool { return sameDevice(r, other) }) {
				t.Error("the rule for another device is gone")
			}
		})
	}
}

// TestPrivilegedWithoutNesting: with nesting = "off" a privileged container had
// the devices of the host.
func TestPrivilegedWithoutNesting(t *testing.T) {
	t.Parallel()
	null := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(1), Minor: number(3), Access: "rwm"}
	all := []specs.LinuxDevice{
		{Path: "/dev/vda", Type: "b", Major: 254},
		{Path: "/dev/tty0", Type: "c", Major: 4},
		{Path: "/dev/raw", Type: "u", Major: 162},
		{Path: "/dev/initctl", Type: "p"},
	}
	for _, everything := range []specs.LinuxDeviceCgroup{
		{Allow: true, Access: "rwm"},
		{Allow: true, Type: "a", Major: number(-1), Minor: number(-1), Access: "rwm"},
	} {
		s := &specs.Spec{Linux: &specs.Linux{
			Devices:   slices.Clone(all),
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{null, everything}},
		}}
		for range 2 { // the second time changes nothing
			if _, err := unprivileged(s, &Plan{}); err != nil {
				t.Fatal(err)
			}
			rules := s.Linux.Resources.Devices
			if len(rules) != 2 || rules[0].Allow || rules[0].Major != nil || !sameDevice(rules[1], null) {
				t.Errorf("rules are %+v", rules)
			}
			if len(s.Linux.Devices) != 0 {
				t.Errorf("devices are %+v", s.Linux.Devices)
			}
		}
	}
	s := &specs.Spec{Linux: &specs.Linux{Devices: slices.Clone(all), Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{null}}}}
	if _, err := unprivileged(s, &Plan{}); err != nil || len(s.Linux.Devices) != len(all) {
		t.Errorf("an ordinary container has %+v, %v", s.Linux.Devices, err)
	}
}

// TestNodeWithoutMode: a node for which the client names no mode, as dockerd does for
// devices with hooks (CDI), has the one that runc and crun give it, so that users other
// than root can open it.
func TestNodeWithoutMode(t *testing.T) {
	t.Parallel()
	mode := os.FileMode(0o640)
	s := &specs.Spec{Linux: &specs.Linux{Devices: []specs.LinuxDevice{
		{Path: "/dev/without", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/with", Type: "c", Major: 1, Minor: 5, FileMode: &mode},
	}}}
	want := map[string]os.FileMode{"/dev/without": 0o666, "/dev/with": 0o640}
	for _, d := range Devices(s) {
		if m, ok := want[d.Path]; ok && d.Mode != m {
			t.Errorf("%s has mode %o, want %o", d.Path, d.Mode, m)
		}
	}
}
