// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/rig"
)

// hostNodes makes a directory of device nodes that everybody may open, and returns
// the options that bind it at /mnt. It stands for what an image can bring along.
func hostNodes(t *testing.T) []string {
	t.Helper()
	dir := shortDir(t)
	for name, n := range map[string]struct {
		kind         uint32
		major, minor uint32
	}{
		"loop": {unix.S_IFBLK, 7, 0}, "mem": {unix.S_IFCHR, 1, 1}, "console": {unix.S_IFCHR, 5, 1},
		"loop-control": {unix.S_IFCHR, 10, 237}, "kmsg": {unix.S_IFCHR, 1, 11}, "null": {unix.S_IFCHR, 1, 3},
	} {
		path := filepath.Join(dir, name)
		if err := unix.Mknod(path, n.kind, int(unix.Mkdev(n.major, n.minor))); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return volume(dir, "/mnt", "rbind:rw")
}

// open is the program that opens them, and others that a container has.
var open = []string{"/inside", "open", "/mnt", "/dev/fuse", "/dev/net/tun", "/dev/null"}

func checkOpen(t *testing.T, when string, r rig.Result) {
	t.Helper()
	answers := answer[map[string]string](t, r)
	for name, got := range answers {
		want := "operation not permitted"
		switch name {
		case "/mnt/null", "/dev/null", "/dev/fuse", "/dev/net/tun":
			want = ""
		}
		if got != want {
			t.Errorf("%s, opening %s: %q, want %q", when, name, got, want)
		}
	}
	if len(answers) != 9 {
		t.Errorf("%s, there are only %v", when, answers)
	}
}

// TestUpdateOpensNoDevice proves that an update of resources leaves the devices
// alone, when it carries the device rules of the spec as the client sent it, which
// the CRI does.
func TestUpdateOpensNoDevice(t *testing.T) {
	for _, runtime := range ociRuntimes {
		for _, options := range [][]string{nil, {"--privileged"}} {
			t.Run(fmt.Sprintf("%s%s", runtime, options), func(t *testing.T) {
				rig.Require(t, rig.Root)
				m := demoMachine(t, runtime)
				m.start(t, "a", slices.Concat(withInside(t), hostNodes(t), options), "sleep", "1000")
				checkOpen(t, "at first", m.exec(t, "a", nil, open...))
				var stored struct{ Spec specs.Spec }
				if err := json.Unmarshal([]byte(m.Ctr(t.Context(), "containers", "info", "a").Must(t)), &stored); err != nil {
					t.Fatal(err)
				}
				shares := uint64(77)
				resources := stored.Spec.Linux.Resources
				resources.CPU = &specs.LinuxCPU{Shares: &shares}
				m.Container("a").Update(t, resources)
				checkOpen(t, "after the update", m.exec(t, "a", nil, open...))
				if got := m.exec(t, "a", nil, "sh", "-c", "cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null || cat /sys/fs/cgroup/cpu.weight").Must(t); got != "77" && got != "3" && got != "16" {
					t.Errorf("the share of CPU is %q", got) // 3 is what 77 means for version 2; 16 since runc 1.3.2
				}
			})
		}
	}
}

// TestDeviceRulesOpenWhatWasGiven proves that rules which allow more than the
// devices that a container was given open none of the host's through nodes that it
// finds somewhere.
func TestDeviceRulesOpenWhatWasGiven(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	rules := map[string]func(old []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup{
		"none": func([]specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup { return nil },
		"both types": func(old []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
			return append(old, specs.LinuxDeviceCgroup{Allow: true, Type: "b", Access: "rwm"}, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Access: "rwm"})
		},
		"major": func(old []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
			return append(old, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(10), Access: "rwm"},
				specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: number(7), Access: "rw"})
		},
		"privileged and more": func([]specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
			return []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}, {Allow: true, Type: "c", Major: number(10), Minor: number(237), Access: "rwm"}}
		},
		"all but making nodes": func([]specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
			return []specs.LinuxDeviceCgroup{{Allow: true, Type: "a", Access: "rw"}}
		},
	}
	for _, runtime := range ociRuntimes {
		for name, change := range rules {
			t.Run(fmt.Sprintf("%s/%s", runtime, name), func(t *testing.T) {
				rig.Require(t, rig.Root)
				m := demoMachine(t, runtime)
				root := tinyRootfs(t, 0)
				if err := os.Mkdir(filepath.Join(root, "mnt"), 0o755); err != nil {
					t.Fatal(err)
				}
				config := m.bundle(t, root, func(s *specs.Spec) {
					s.Process.Args = open
					s.Linux.Resources.Devices = change(s.Linux.Resources.Devices)
					source, _, _ := strings.Cut(strings.TrimPrefix(hostNodes(t)[1], "type=bind,src="), ",")
					s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: source, Options: []string{"rbind", "rw"}})
				})
				t.Cleanup(func() { m.Container("a").Remove(t) })
				checkOpen(t, "with such rules", m.Output(t, "run", "--rm", "--runtime", shimName, "--config", config, "a"))
			})
		}
	}
}
