// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// parseRule reads "+c 10:237 rwm", with "-" for one that denies and "*" for any number.
func parseRule(t *testing.T, line string) specs.LinuxDeviceCgroup {
	t.Helper()
	f := strings.Fields(line[1:])
	r := specs.LinuxDeviceCgroup{Allow: line[0] == '+', Type: f[0], Access: f[2]}
	for i, n := range strings.Split(f[1], ":") {
		if n == "*" {
			continue
		}
		v, err := strconv.ParseInt(n, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			r.Major = &v
		} else {
			r.Minor = &v
		}
	}
	return r
}

func printRules(rules []specs.LinuxDeviceCgroup) []string {
	var out []string
	for _, r := range rules {
		sign := "-"
		if r.Allow {
			sign = "+"
		}
		out = append(out, sign+text(r))
	}
	return out
}

// TestDeviceRulesOpenWhatWasGiven: a rule for a whole major number, or for all
// devices of a type, opened the host's devices through nodes of an image.
func TestDeviceRulesOpenWhatWasGiven(t *testing.T) {
	t.Parallel()
	const nothing = "-a *:* rwm"
	const end = "-c 5:1 rwm"
	tests := []struct {
		name    string
		devices []specs.LinuxDevice
		bound   []Node
		rules   []string
		want    []string // between "deny all" and "deny the console"
		lost    int
	}{
		{name: "no rules at all"},
		{
			name: "what clients send", rules: []string{nothing, "+c *:* m", "+b *:* m", "+c 1:3 rwm", "+c 136:* rwm", "+c 5:1 rwm", "+c 10:200 rwm"},
			want: []string{"+c 1:3 rwm", "+c 136:* rwm", "+c 10:200 rwm"},
		},
		{name: "only what is allowed", rules: []string{"+c 1:3 rwm"}, want: []string{"+c 1:3 rwm"}},
		{name: "everything in two rules", rules: []string{nothing, "+b *:* rwm", "+c *:* rwm"}, want: []string{"+c 10:229 rw", "+c 10:200 rw"}, lost: 2},
		{name: "everything but making nodes", rules: []string{"+a *:* rw"}},
		{name: "privileged and more", rules: []string{"+a *:* rwm", "+c 10:237 rwm"}, lost: 1},
		{name: "a major number", rules: []string{nothing, "+c 10:* rwm"}, want: []string{"+c 10:229 rw", "+c 10:200 rw"}, lost: 1},
		{name: "a device without a node", rules: []string{"+c 42:0 rwm"}, lost: 1},
		{name: "of both types", rules: []string{"+a 8:0 rw"}, devices: []specs.LinuxDevice{{Path: "/dev/sda", Type: "b", Major: 8}}, want: []string{"+b 8:0 rw"}, lost: 1},
		{name: "a device of its own", rules: []string{"+c 42:0 r"}, devices: []specs.LinuxDevice{{Path: "/dev/x", Type: "u", Major: 42}}, want: []string{"+c 42:0 r"}},
		{name: "all of a type, with a device", rules: []string{"+b *:* rw"}, devices: []specs.LinuxDevice{{Path: "/dev/sda", Type: "b", Major: 8}}, want: []string{"+b 8:0 rw"}, lost: 1},
		{name: "a directory of the host's /dev", bound: []Node{{"c", 189, -1}}, rules: []string{"+c 189:* rwm", "+c 189:7 rw"}, want: []string{"+c 189:* rwm", "+c 189:7 rw"}},
		{name: "a directory does not stand for all", bound: []Node{{"c", 189, -1}}, rules: []string{"+c *:* rw"}, want: []string{"+c 10:229 rw", "+c 10:200 rw"}, lost: 1},
		{name: "denied again", rules: []string{nothing, "+c 1:3 rwm", nothing, "+c 1:5 rwm", "-c 136:2 rwm"}, want: []string{"+c 1:5 rwm", "-c 136:2 rwm"}},
		{name: "console asked for", devices: []specs.LinuxDevice{{Path: "/dev/console", Type: "c", Major: 5, Minor: 1}}, rules: []string{"+c 5:1 rwm"}, want: []string{"+c 5:1 rwm"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &specs.Spec{Linux: &specs.Linux{CgroupsPath: "/default/a", Devices: tt.devices}}
			if tt.rules != nil {
				s.Linux.Resources = &specs.LinuxResources{}
			}
			for _, line := range tt.rules {
				s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, parseRule(t, line))
			}
			p := &Plan{Nesting: &Nesting{}, Nodes: slices.Concat(Nodes(s), tt.bound)}
			if _, err := unprivileged(s, p); err != nil {
				t.Fatal(err)
			}
			want := slices.Concat([]string{nothing}, tt.want, []string{end})
			if slices.Contains(p.Nodes, Node{"c", 5, 1}) {
				want = want[:len(want)-1]
			}
			warnings, err := deviceRules(s, p)
			if err != nil {
				t.Fatal(err)
			}
			if got := printRules(s.Linux.Resources.Devices); !slices.Equal(got, want) {
				t.Errorf("rules are\n%q, want\n%q", got, want)
			}
			if len(warnings) != tt.lost {
				t.Errorf("warnings are %q", warnings)
			}
			if again, err := deviceRules(s, p); err != nil || len(again) > 0 || !slices.Equal(printRules(s.Linux.Resources.Devices), want) {
				t.Errorf("the second time they are %q, %q, %v", printRules(s.Linux.Resources.Devices), again, err)
			}
		})
	}
}

func TestPrivilegedInParts(t *testing.T) {
	t.Parallel()
	for rules, want := range map[string]bool{
		"+a *:* rwm":             true,
		"+a *:* m":               false,
		"+c *:* rwm;+b *:* rw":   true,
		"+c *:* rwm;+b *:* m":    false,
		"+c *:* rwm":             false,
		"-a *:* rwm;+c 10:* rwm": false,
	} {
		s := &specs.Spec{Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
		for line := range strings.SplitSeq(rules, ";") {
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, parseRule(t, line))
		}
		if got := privileged(s); got != want {
			t.Errorf("%s: %v", rules, got)
		}
	}
}

func TestDeviceSources(t *testing.T) {
	t.Parallel()
	mounts := []specs.Mount{
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		{Destination: "/dev/bus/usb", Type: "bind", Source: "/dev/bus/usb/"},
		{Destination: "/x", Type: "bind", Source: "relative"},
	}
	for rule, want := range map[string][]string{"+c 189:* rwm": {"/dev/bus/usb"}, "+c 1:3 rwm": nil, "+c *:* m": nil, "+a *:* rwm": nil, "+c 5:1 rwm": nil} {
		s := &specs.Spec{Mounts: mounts, Linux: &specs.Linux{Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{parseRule(t, rule)}}}}
		if got := DeviceSources(s); !slices.Equal(got, want) {
			t.Errorf("%s: %q", rule, got)
		}
	}
}

// TestUpdateLeavesDevicesAlone: the CRI's update of resources carries the rules of
// the spec as the client sent it, and crun applies them.
func TestUpdateLeavesDevicesAlone(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"devices":[{"allow":true,"access":"rwm"}],"cpu":{"shares":512}}`: `{"cpu":{"shares":512}}`,
		`{"devices":[],"future":{"kept":18446744073709551615}}`:            `{"future":{"kept":18446744073709551615}}`,
		`{"unified":{"devices":"x"},"devices":null}`:                       `{"unified":{"devices":"x"}}`,
		`{"devices":[{"allow":false}]}`:                                    `{}`,
		`{}`:                                                               `{}`,
	} {
		got, err := UpdateResources([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%s became %s, %v", in, got, err)
		}
	}
	for _, in := range []string{``, `{`, `null`, `[]`, `{"cpu":{"shares":-1}}`, `{"devices":[],"Devices":[]}`} {
		if got, err := UpdateResources([]byte(in)); err == nil {
			t.Errorf("%s became %s", in, got)
		}
	}
}
