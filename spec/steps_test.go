// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
)

func TestClampGroups(t *testing.T) {
	t.Parallel()
	m := idmap.Contiguous(300000, 65536)
	tests := []struct {
		name, in, want string
		wantErr        bool
	}{
		{name: "whole range of the kernel", in: "0 2147483647", want: "0 65535"},
		{name: "tabs, as the kernel prints", in: "0\t2147483647", want: "0 65535"},
		{name: "inside", in: "5 100", want: "5 100"},
		{name: "empty range", in: "1 0", want: "1 0"},
		{name: "outside", in: "70000 80000", wantErr: true},
		{name: "one number", in: "7", wantErr: true},
		{name: "not a number", in: "0 all", wantErr: true},
		{name: "negative", in: "-1 5", wantErr: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := clampGroups(tt.in, m)
			if (err != nil) != tt.wantErr || got != tt.want {
				t.Errorf("got %q, %v; want %q, error %v", got, err, tt.want, tt.wantErr)
			}
		})
	}
}

// TestStoreHidesVolume: a store came after a volume below it, and over it.
func TestStoreHidesVolume(t *testing.T) {
	t.Parallel()
	staged := map[string]string{"/var/lib/docker": "/stage/docker", "/var/lib/containerd": "/stage/containerd"}
	for _, test := range []struct {
		name   string
		mounts []string
		want   []string
	}{
		{name: "nothing there", mounts: []string{"/proc"}, want: []string{"/proc", "/var/lib/containerd", "/var/lib/docker"}},
		{name: "volume at the store", mounts: []string{"/var/lib/docker", "/data"}, want: []string{"/var/lib/docker", "/data", "/var/lib/containerd"}},
		{name: "volumes below", mounts: []string{"/proc", "/var/lib/docker/volumes/", "/var/lib/docker/tmp", "/data"}, want: []string{
			"/proc", "/var/lib/docker", "/var/lib/docker/volumes/", "/var/lib/docker/tmp", "/data", "/var/lib/containerd",
		}},
		{name: "a name that only begins so", mounts: []string{"/var/lib/docker-volumes"}, want: []string{"/var/lib/docker-volumes", "/var/lib/containerd", "/var/lib/docker"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &specs.Spec{}
			for _, destination := range test.mounts {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: destination})
			}
			stores(s, &Plan{Nesting: &Nesting{Stores: staged}})
			var got []string
			for _, m := range s.Mounts {
				got = append(got, m.Destination)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("mounts are %q, want %q", got, test.want)
			}
		})
	}
}

func TestProcessUser(t *testing.T) {
	t.Parallel()
	plan := &Plan{Mapping: idmap.Contiguous(300000, 65536)}
	tests := []struct {
		name    string
		user    specs.User
		wantErr bool
	}{
		{name: "root"},
		{name: "last", user: specs.User{UID: 65535, GID: 65535}},
		{name: "user outside", user: specs.User{UID: 65536}, wantErr: true},
		{name: "group outside", user: specs.User{GID: 65536}, wantErr: true},
		{name: "additional group outside", user: specs.User{AdditionalGids: []uint32{4, 1 << 20}}, wantErr: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Process(&specs.Process{User: tt.user}, plan)
			if errors.Is(err, ErrRefused) != tt.wantErr {
				t.Errorf("got %v, want refusal %v", err, tt.wantErr)
			}
		})
	}
}

func TestExecProcessKeepsUnknownFields(t *testing.T) {
	t.Parallel()
	in := []byte(`{"args":["sh"],"cwd":"/","user":{"uid":0,"gid":0},"future":[1,2]}`)
	out, _, err := ExecProcess(in, &Plan{Mapping: idmap.Contiguous(300000, 65536)})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if _, ok := got["future"]; !ok {
		t.Errorf("lost a field: %s", out)
	}
}

func TestCgroupPath(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, path string
		systemd    bool
		want       string
	}{
		{name: "ctr", path: "/default/c1", want: "/default/c1"},
		{name: "relative to the runtime's own", path: "c1", want: ""},
		{name: "none", path: "", want: ""},
		{name: "cannot leave the mount", path: "/../../etc", want: "/etc"},
		{name: "CRI with systemd", path: "kubepods-burstable-pod1.slice:cri-containerd:c1", systemd: true, want: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-c1.scope"},
		{name: "docker with systemd", path: "system.slice:docker:c1", systemd: true, want: "/system.slice/docker-c1.scope"},
		{name: "default slice", path: ":isolate:c1", systemd: true, want: "/system.slice/isolate-c1.scope"},
		{name: "root slice", path: "-.slice:isolate:c1", systemd: true, want: "/isolate-c1.scope"},
		{name: "not systemd's form", path: "/default/c1", systemd: true, want: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &specs.Spec{Linux: &specs.Linux{CgroupsPath: tt.path}}
			if got := CgroupPath(s, tt.systemd); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got, want := SystemdCgroup(s), tt.systemd && tt.want != ""; got != want {
				t.Errorf("made by systemd: %v, want %v", got, want)
			}
		})
	}
}

func TestCgroupPathOfOthersIsRefused(t *testing.T) {
	t.Parallel()
	for path, refused := range map[string]bool{
		"": false, "/default/c1": false, "c1": false, "kubepods-pod1.slice:cri-containerd:c1": false, "-.slice:isolate:c1": false,
		"/..a/c1": false,
		"/":       true, "//": true, "/.": true, ".": true, "..": true, "/default/..": true, "/default/../c1": true, "../c1": true, "a/..": true,
		"system.slice::../../x": true, "a/b.slice:p:c1": true, "system.slice:..:/c1": true,
	} {
		err := CheckCgroupPath(&specs.Spec{Linux: &specs.Linux{CgroupsPath: path}})
		if errors.Is(err, ErrRefused) != refused {
			t.Errorf("%q: %v, refused is to be %v", path, err, refused)
		}
	}
}

func TestCgroupInUseIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		in   ExistingCgroup
		want string
	}{
		{"empty", ExistingCgroup{Dir: "/a"}, ""},
		{"left by a container", ExistingCgroup{Dir: "/a", Owners: []uint32{1879048192}}, ""},
		{"of a service", ExistingCgroup{Dir: "/a", Owners: []uint32{1879048192, 0}}, "groups of others"},
		{"of a user", ExistingCgroup{Dir: "/a", Owners: []uint32{1000}}, "groups of others"},
		{"in use", ExistingCgroup{Dir: "/a", Populated: true}, "processes"},
	} {
		err := CheckCgroups([]ExistingCgroup{{Dir: "/first"}, c.in})
		if (c.want == "") != (err == nil) || err != nil && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"not JSON":    `{`,
		"no process":  `{"root":{"path":"r"}}`,
		"no root":     `{"process":{"cwd":"/","user":{}}}`,
		"for Windows": `{"process":{"cwd":"/","user":{}},"root":{"path":"r"},"windows":{}}`,
	} {
		if _, err := Parse([]byte(in)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"ociVersion":"1.2.0","process":{"cwd":"/","user":{}},"root":{"path":"rootfs"},"x":null}`))
	f.Add([]byte(`{"process":{"cwd":"/","user":{}},"root":{"path":"r"},"mounts":[{"destination":"/d","source":"s","options":["rbind","uid=1"]}],"linux":{"sysctl":{"net.ipv4.ping_group_range":"0 9"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := Parse(data)
		if err != nil {
			return
		}
		d, err := Decide(doc.Spec, Facts{}, Policy{})
		if err != nil {
			return
		}
		plan := &Plan{Decision: d, Mapping: idmap.Contiguous(300000, 65536), Staged: map[int]StagedMount{}}
		volumes, err := Volumes(doc.Spec, d, plan.Mapping, "/bundle")
		if err != nil {
			return
		}
		for _, v := range volumes {
			plan.Staged[v.Index] = StagedMount{Source: "/stage"}
		}
		if _, err := Apply(doc.Spec, plan); err != nil {
			return
		}
		out, err := doc.JSON()
		if err != nil {
			t.Fatalf("encode what was accepted: %v", err)
		}
		if _, err := Parse(out); err != nil {
			t.Fatalf("result is no spec: %v\n%s", err, out)
		}
	})
}

// TestVolumeFlagsOfTheClone: runc 1.1 could not mount a volume whose source is
// nosuid, since the spec did not say so, and crun made it a setuid one.
func TestVolumeFlagsOfTheClone(t *testing.T) {
	t.Parallel()
	s := &specs.Spec{Mounts: []specs.Mount{{
		Destination: "/data", Type: "bind", Source: "/run/data",
		Options: []string{"rbind", "rro", "suid", "rslave", "noatime"},
	}}}
	p := &Plan{Staged: map[int]StagedMount{0: {Source: "/stage/0", Flags: []string{"ro", "nosuid"}}}}
	if _, err := volumes(s, p); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Mounts[0].Options, []string{"rbind", "rslave", "ro", "nosuid"}; !slices.Equal(got, want) {
		t.Errorf("options %q, want %q", got, want)
	}
}

// TestNetSysctls takes the sysctls of a foreign network namespace away: from the
// caller's if the shim has set them, else with a warning for each.
func TestNetSysctls(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		network  Network
		set      bool
		left     int
		warnings int
	}{
		{name: "own", network: NetworkOwned, left: 4},
		{name: "a pod's, set by the shim", network: NetworkForeign, set: true, left: 1},
		{name: "the host's", network: NetworkForeign, left: 1, warnings: 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &specs.Spec{Linux: &specs.Linux{Sysctl: map[string]string{
				"net.ipv4.ip_unprivileged_port_start": "0", "net/ipv4/conf/eth0.1/forwarding": "1",
				"net.ipv4.ping_group_range": "0 2147483647", "kernel.shm_rmid_forced": "1",
			}}}
			p := &Plan{Decision: Decision{Network: tt.network}, NetSysctlsSet: tt.set, Mapping: idmap.Contiguous(300000, 65536)}
			warnings, err := sysctls(s, p)
			if err != nil || len(s.Linux.Sysctl) != tt.left || len(warnings) != tt.warnings {
				t.Errorf("left %v, warnings %q, %v", s.Linux.Sysctl, warnings, err)
			}
		})
	}
}

// TestTakeLimits keeps everything else of a process, known or not.
func TestTakeLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		process, left string
		limits        int
	}{
		{`{"user":{"uid":0,"gid":0},"cwd":"/","new":1}`, `{"user":{"uid":0,"gid":0},"cwd":"/","new":1}`, 0},
		{`{"cwd":"/","new":1,"rlimits":[{"type":"RLIMIT_CORE","hard":1,"soft":0},{"type":"RLIMIT_NOFILE","hard":5,"soft":5}]}`, `{"cwd":"/","new":1}`, 2},
	} {
		left, limits, err := TakeLimits([]byte(tt.process))
		if err != nil || string(left) != tt.left || len(limits) != tt.limits {
			t.Errorf("left %s, took %v, %v", left, limits, err)
		}
	}
	if _, _, err := TakeLimits([]byte("{")); err == nil {
		t.Error("half a process was read")
	}
}

// TestNothingIsMadeInAVolume: the runtime makes mount points that are missing, and
// would make ours in the caller's directory, or fail to.
func TestNothingIsMadeInAVolume(t *testing.T) {
	t.Parallel()
	bind := func(destination string) specs.Mount {
		return specs.Mount{Destination: destination, Type: "bind", Source: "/host", Options: []string{"rbind"}}
	}
	tmpfs := func(destination string) specs.Mount { return specs.Mount{Destination: destination, Type: "tmpfs"} }
	for _, test := range []struct {
		name      string
		mounts    []specs.Mount
		none      string // the directory below which nothing is added
		some      string // one in which something is
		warnings  int
		keepsNode bool
	}{
		{name: "/dev", mounts: []specs.Mount{bind("/dev"), tmpfs("/sys")}, none: "/dev", some: "/run", warnings: 1, keepsNode: true},
		{name: "over a tmpfs", mounts: []specs.Mount{tmpfs("/dev"), bind("/dev/")}, none: "/dev", warnings: 1, keepsNode: true},
		{name: "below a tmpfs", mounts: []specs.Mount{tmpfs("/dev"), bind("/dev/net")}, none: "/dev/net", some: "/dev"},
		{name: "hidden by a tmpfs", mounts: []specs.Mount{bind("/dev/net"), tmpfs("/dev")}, some: "/dev"},
		{name: "/run", mounts: []specs.Mount{tmpfs("/dev"), bind("/run")}, none: "/run", some: "/dev"},
		{name: "/sys", mounts: []specs.Mount{tmpfs("/dev"), bind("/sys")}, none: "/sys", some: "/dev"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &specs.Spec{Mounts: slices.Clone(test.mounts), Linux: &specs.Linux{Devices: []specs.LinuxDevice{{Path: "/dev/x"}}}, Process: &specs.Process{}}
			p := &Plan{Nesting: &Nesting{
				Hidden: "/stage/hidden", Systemd: true, Units: "/stage/units", KeepSeccomp: true,
				Devices: map[string]string{"/dev/x": "/stage/x", "/dev/fuse": "/stage/fuse", "/dev/net/tun": "/stage/tun"},
			}}
			warnings, err := nest(s, p)
			if err != nil || len(warnings) != test.warnings {
				t.Errorf("warnings %q, %v; want %d", warnings, err, test.warnings)
			}
			added := 0
			for _, m := range s.Mounts[len(test.mounts):] {
				if test.none != "" && below(m.Destination, test.none) {
					t.Errorf("%s is made in the volume on %s", m.Destination, test.none)
				}
				if below(m.Destination, test.some) {
					added++
				}
			}
			if test.some != "" && added == 0 {
				t.Errorf("nothing is made in %s", test.some)
			}
			if kept := len(s.Linux.Devices) > 0; kept != test.keepsNode {
				t.Errorf("the runtime makes the caller's node: %v, want %v", kept, test.keepsNode)
			}
		})
	}
}

// TestReadOnlyAsDocker: dockerd means all of a volume by "ro".
func TestReadOnlyAsDocker(t *testing.T) {
	t.Parallel()
	volumes := []Volume{
		{Recursive: true, Flags: []string{"ro", "nosuid"}},
		{Flags: []string{"ro"}},
		{Recursive: true, Flags: []string{"nosuid"}},
	}
	ReadOnlyAsDocker(volumes)
	for i, want := range [][]string{{"rro", "nosuid"}, {"ro"}, {"nosuid"}} {
		if got := volumes[i].Flags; !slices.Equal(got, want) {
			t.Errorf("%d: got %q, want %q", i, got, want)
		}
	}
}
