// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func device(kind string, major, minor int64) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: "rwm"}
}

// answer is what the last rule that fits says, as the kernel's program does.
func answer(rules []specs.LinuxDeviceCgroup, kind string, major, minor int64) bool {
	fits := func(want *int64, have int64) bool { return *want == -1 || *want == have }
	for _, r := range slices.Backward(rules) {
		if (r.Type == "a" || r.Type == kind) && fits(r.Major, major) && fits(r.Minor, minor) {
			return r.Allow
		}
	}
	return false
}

// TestDisksStayClosed: a device program that the runtime replaces, as crun does in
// an update of resources, opened the machine's disks.
func TestDisksStayClosed(t *testing.T) {
	t.Parallel()
	type open struct {
		kind         string
		major, minor int64
	}
	null, console, sda, sdb, loop := open{"c", 1, 3}, open{"c", 5, 1}, open{"b", 8, 0}, open{"b", 8, 16}, open{"b", 7, 3}
	for _, tt := range []struct {
		name  string
		given []specs.LinuxDeviceCgroup
		opens []open
	}{
		{"nothing given", nil, []open{null}},
		{"a disk", []specs.LinuxDeviceCgroup{device("b", 8, 16)}, []open{null, sdb}},
		{"all loop devices", []specs.LinuxDeviceCgroup{device("b", 7, -1)}, []open{null, loop}},
		{"the console", []specs.LinuxDeviceCgroup{device("c", 5, 1), device("c", 8, 0)}, []open{null, console}},
		{"every terminal", []specs.LinuxDeviceCgroup{device("c", 5, -1)}, []open{null, console}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rules := bounds(tt.given)
			for _, o := range []open{null, console, sda, sdb, loop} {
				if got, want := answer(rules, o.kind, o.major, o.minor), slices.Contains(tt.opens, o); got != want {
					t.Errorf("%v opens: %v", o, got)
				}
			}
			if _, _, err := cgroup2.DeviceFilter(rules); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDeviceProgram has the kernel judge: a process in a group of version 2 opens
// nodes that everybody may open, as a runtime's program without rules would let it.
func TestDeviceProgram(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil || len(mounts) == 0 {
		t.Fatalf("no cgroup2: %v", err)
	}
	nodes := t.TempDir()
	for name, n := range map[string]specs.LinuxDeviceCgroup{"loop0": device("b", 7, 0), "loop1": device("b", 7, 1), "console": device("c", 5, 1), "null": device("c", 1, 3)} {
		kind := uint32(unix.S_IFCHR)
		if n.Type == "b" {
			kind = unix.S_IFBLK
		}
		if err := unix.Mknod(filepath.Join(nodes, name), kind|0o666, int(unix.Mkdev(uint32(*n.Major), uint32(*n.Minor)))); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name   string
		given  []specs.LinuxDeviceCgroup
		denied []string
	}{
		{"nothing given", nil, []string{"console", "loop0", "loop1"}},
		{"a disk", []specs.LinuxDeviceCgroup{device("b", 7, 0)}, []string{"console", "loop1"}},
		{"all of them, and the console", []specs.LinuxDeviceCgroup{device("b", 7, -1), device("c", 5, 1)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, err := os.MkdirTemp(mounts[0].Mountpoint, "devices")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.Remove(dir); err != nil {
					t.Error(err)
				}
			})
			g := &group{unified: true}
			if g.File, err = os.Open(dir); err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			if err := g.denyDevices(tt.given); err != nil {
				t.Fatal(err)
			}
			const script = `echo $$ > "$1/cgroup.procs" || exit 1; cd "$2" || exit 1
				for n in *; do e=$( (: < $n) 2>&1 ); case $e in *"not permitted"*) echo $n;; esac; done; echo $$ > "$1/../cgroup.procs"`
			out, err := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", dir, nodes).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got := strings.Fields(string(out)); !slices.Equal(got, tt.denied) {
				t.Errorf("denied are %q, want %q", got, tt.denied)
			}
		})
	}
}
