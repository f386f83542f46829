// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"runtime"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// allowed lists what a profile allows whatever the arguments.
func allowed(p *specs.LinuxSeccomp) []string {
	var names []string
	for _, rule := range p.Syscalls {
		if rule.Action == specs.ActAllow && len(rule.Args) == 0 {
			names = append(names, rule.Names...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func profileFor(caps []string) *specs.LinuxSeccomp {
	return seccomp.DefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}},
		Linux:   &specs.Linux{},
	})
}

// The list is what containerd's profile allows for nestingCaps and not for an
// ordinary container, but for hostSyscalls, and pivot_root.
func TestNestingSyscalls(t *testing.T) {
	t.Parallel()
	without := allowed(profileFor(nil))
	want := []string{"pivot_root"}
	for _, name := range allowed(profileFor(nestingCaps)) {
		if !slices.Contains(without, name) && !slices.Contains(hostSyscalls, name) {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	for _, name := range want {
		if !slices.Contains(nestingSyscalls, name) && !slices.Contains(without, name) {
			t.Errorf("containerd allows %s for these capabilities, the list does not", name)
		}
	}
	for _, name := range nestingSyscalls {
		if !slices.Contains(want, name) && !slices.Contains(without, name) {
			t.Errorf("the list has %s, which containerd does not allow for these capabilities", name)
		}
	}
	if !slices.IsSorted(nestingSyscalls) {
		t.Error("the list is not sorted")
	}
}

// TestSeccompArchitecture: the profile that a container gets without one of the
// caller's is for the processor that it runs on.
func TestSeccompArchitecture(t *testing.T) {
	t.Parallel()
	native, ok := map[string]specs.Arch{"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64}[runtime.GOARCH]
	if !ok {
		t.Skipf("nobody has looked at %s", runtime.GOARCH)
	}
	s := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}
	seccompProfile(s, &Plan{Nesting: &Nesting{}})
	if got := s.Linux.Seccomp.Architectures; !slices.Contains(got, native) || slices.Contains(got, specs.ArchX32) {
		t.Errorf("it is for %q, want %q among them and not %q", got, native, specs.ArchX32)
	}
	for _, name := range []string{"openat", "pivot_root", "clone3"} {
		if !slices.Contains(allowed(s.Linux.Seccomp), name) {
			t.Errorf("%s is not allowed", name)
		}
	}
}

// TestHostSyscallsStayClosed: every user of a container could read the host's log,
// where the host lets its own users do so, and hand programs to the kernel.
func TestHostSyscallsStayClosed(t *testing.T) {
	t.Parallel()
	engines := profileFor(nil)
	asked := profileFor([]string{"CAP_SYSLOG", "CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN"})
	for _, tt := range []struct {
		name  string
		given *specs.LinuxSeccomp
		want  bool
	}{{"none", nil, false}, {"the engine's", engines, false}, {"one that allows them", asked, true}} {
		s := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Seccomp: tt.given}}
		seccompProfile(s, &Plan{Nesting: &Nesting{}})
		names := allowed(s.Linux.Seccomp)
		for _, name := range hostSyscalls {
			if got := slices.Contains(names, name); got != tt.want {
				t.Errorf("profile %s: %s is allowed: %v", tt.name, name, got)
			}
		}
		if !slices.Contains(names, "pivot_root") || !slices.Contains(names, "mount") {
			t.Errorf("profile %s denies what nesting needs", tt.name)
		}
	}
}

func TestWiden(t *testing.T) {
	t.Parallel()
	mask := []specs.LinuxSeccompArg{{Value: 1, Op: specs.OpMaskedEqual}}
	in := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"clone"}, Action: specs.ActAllow, Args: mask},
		{Names: []string{"clone3", "kexec_load"}, Action: specs.ActErrno},
		{Names: []string{"mount"}, Action: specs.ActNotify},
		{Names: []string{"unshare"}, Action: specs.ActLog},
		{Names: []string{"read"}, Action: specs.ActAllow},
	}}
	out := widen(in)
	names := allowed(out)
	for name, want := range map[string]bool{"clone": true, "clone3": true, "pivot_root": true, "read": true, "mount": false, "unshare": false, "kexec_load": false} {
		if slices.Contains(names, name) != want {
			t.Errorf("%s allowed: %v, want %v", name, !want, want)
		}
	}
	seen := map[string]int{}
	for _, rule := range out.Syscalls {
		for _, name := range rule.Names {
			seen[name]++
		}
	}
	for name, n := range seen {
		if n > 1 && name != keyctl { // all of one action
			t.Errorf("%s has %d rules, which libseccomp refuses", name, n)
		}
	}
	if len(in.Syscalls[1].Names) != 2 {
		t.Error("the caller's profile was changed")
	}

	open := widen(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mount"}, Action: specs.ActErrno}}})
	if len(open.Syscalls) != 0 {
		t.Errorf("profile that allows by default: %+v", open.Syscalls)
	}
}

// TestNoKeysAreStored: keys are memory that no cgroup is charged for.
func TestNoKeysAreStored(t *testing.T) {
	t.Parallel()
	s := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}
	seccompProfile(s, &Plan{Nesting: &Nesting{}})
	for _, name := range []string{"add_key", "request_key", keyctl} {
		if slices.Contains(allowed(s.Linux.Seccomp), name) {
			t.Errorf("%s is allowed, whatever its arguments", name)
		}
	}
	self := func(v int32) uint64 { return uint64(uint32(v)) } //nolint:gosec // as the kernel takes it
	for _, c := range []struct {
		args [6]uint64
		want bool
	}{
		{[6]uint64{1}, true},
		{[6]uint64{2}, false},  // UPDATE
		{[6]uint64{12}, false}, // INSTANTIATE
		{[6]uint64{22}, false}, // GET_PERSISTENT
		{[6]uint64{8, self(-4), self(-3)}, true},
		{[6]uint64{8, ^uint64(3), ^uint64(2)}, true}, // as systemd's C library passes them
		{[6]uint64{8, self(-4), self(-5)}, false},
		{[6]uint64{8, self(-5), self(-3)}, false},
	} {
		if got := allows(s.Linux.Seccomp.Syscalls, keyctl, c.args); got != c.want {
			t.Errorf("keyctl%d is allowed: %v", c.args, got)
		}
	}

	asked := []specs.LinuxSyscall{{Names: []string{"add_key", keyctl}, Action: specs.ActAllow}}
	if got := allowed(widen(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: asked})); !slices.Contains(got, "add_key") || !slices.Contains(got, keyctl) {
		t.Errorf("a caller allows keys, and the container may use %v", got)
	}
	denied := widen(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{keyctl}, Action: specs.ActErrno}}})
	if !allows(denied.Syscalls, keyctl, [6]uint64{1}) || allows(denied.Syscalls, keyctl, [6]uint64{2}) {
		t.Errorf("a caller denies keyctl: %+v", denied.Syscalls)
	}
}

func TestCovered(t *testing.T) {
	t.Parallel()
	s := &specs.Spec{Mounts: []specs.Mount{{Destination: "/var/lib/"}, {Destination: "/"}, {Destination: "/opt/x"}}}
	for path, want := range map[string]bool{"/var/lib": true, "/var/lib/docker": true, "/var/library": false, "/opt": false, "/opt/x/y": true} {
		if got := Covered(s, path); got != want {
			t.Errorf("%s: got %v", path, got)
		}
	}
}
