// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
)

func TestProfile(t *testing.T) {
	t.Parallel()
	const path = "/run/isolate/x/seccomp.sock"
	rule := func(action specs.LinuxSeccompAction, names ...string) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: names, Action: action}
	}
	notify := rule(specs.ActNotify, "pivot_root")
	both := rule(specs.ActNotify, "pivot_root", "sysinfo")
	for _, c := range []struct {
		name string
		in   *specs.LinuxSeccomp
		want *specs.LinuxSeccomp
		err  error
	}{
		{
			name: "none",
			want: &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
				ListenerPath: path, Syscalls: []specs.LinuxSyscall{both},
			},
		},
		{
			name: "allowed by name",
			in:   &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{rule(specs.ActAllow, "mount", "pivot_root", "read")}},
			want: &specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno, ListenerPath: path,
				Syscalls: []specs.LinuxSyscall{rule(specs.ActAllow, "mount", "read"), notify},
			},
		},
		{
			name: "allowed twice, once alone",
			in: &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
				rule(specs.ActAllow, "pivot_root"), rule(specs.ActLog, "pivot_root", "read"),
			}},
			want: &specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno, ListenerPath: path,
				Syscalls: []specs.LinuxSyscall{rule(specs.ActLog, "read"), notify},
			},
		},
		{
			name: "allowed by default",
			in:   &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{rule(specs.ActErrno, "kexec_load")}},
			want: &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow, ListenerPath: path,
				Syscalls: []specs.LinuxSyscall{rule(specs.ActErrno, "kexec_load"), both},
			},
		},
		{
			name: "only one allowed",
			in:   &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{rule(specs.ActAllow, "sysinfo", "read")}},
			want: &specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno, ListenerPath: path,
				Syscalls: []specs.LinuxSyscall{rule(specs.ActAllow, "read"), rule(specs.ActNotify, "sysinfo")},
			},
		},
		{
			name: "one denied by name",
			in:   &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{rule(specs.ActErrno, "sysinfo")}},
			want: &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow, ListenerPath: path,
				Syscalls: []specs.LinuxSyscall{rule(specs.ActErrno, "sysinfo"), notify},
			},
		},
		{name: "denied by default", in: &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}, err: ErrDenied},
		{
			name: "denied by name",
			in:   &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{rule(specs.ActErrno, "pivot_root", "sysinfo")}},
			err:  ErrDenied,
		},
		{
			name: "allowed for some arguments",
			in: &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
				{Names: []string{"pivot_root"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{}}},
			}},
			err: ErrDenied,
		},
		{name: "own listener", in: &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/x"}, err: errTaken},
		{
			name: "own listener elsewhere",
			in:   &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{rule(specs.ActNotify, "mknod")}},
			err:  errTaken,
		},
		{name: "own listener by default", in: &specs.LinuxSeccomp{DefaultAction: specs.ActNotify}, err: errTaken},
		{name: "metadata for a listener", in: &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerMetadata: "m"}, err: errTaken},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			before := clone(c.in)
			got, calls, err := Profile(c.in, path, "amd64", "pivot_root", "sysinfo")
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("got error %v, want %v", err, c.err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if !reflect.DeepEqual(c.in, before) {
				t.Errorf("changed its argument to %+v", c.in)
			}
			if err != nil {
				return
			}
			if last := got.Syscalls[len(got.Syscalls)-1]; !slices.Equal(calls, last.Names) {
				t.Errorf("says that it reports %q, and reports %q", calls, last.Names)
			}
			if again, _, err := Profile(got, path, "amd64", "pivot_root", "sysinfo"); err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("again: %+v, %v", again, err)
			}
		})
	}
	some := func(action specs.LinuxSeccompAction, arg specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{"mount"}, Action: action, Args: []specs.LinuxSeccompArg{arg}}
	}
	var elsewhere []specs.LinuxSyscall
	all := uint64(0)
	for _, flag := range []uint64{unix.MS_RDONLY, unix.MS_NOSUID, unix.MS_NOEXEC, unix.MS_REMOUNT, unix.MS_BIND, unix.MS_MOVE, unix.MS_UNBINDABLE, unix.MS_PRIVATE, unix.MS_SLAVE, unix.MS_SHARED} {
		elsewhere = append(elsewhere, some(specs.ActAllow, specs.LinuxSeccompArg{Index: 3, Value: flag, ValueTwo: flag, Op: specs.OpMaskedEqual}))
		all |= flag
	}
	mounts := some(specs.ActNotify, specs.LinuxSeccompArg{Index: 3, Value: all, Op: specs.OpMaskedEqual})
	for _, c := range []struct {
		name    string
		in      specs.LinuxSeccomp
		want    []specs.LinuxSyscall
		reports []string
	}{
		{
			name: "mount is allowed", in: specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{rule(specs.ActAllow, "mount", "pivot_root")}},
			want: slices.Concat([]specs.LinuxSyscall{notify}, elsewhere, []specs.LinuxSyscall{mounts}), reports: []string{"pivot_root", "mount"},
		},
		{
			name: "mount is allowed by default", in: specs.LinuxSeccomp{DefaultAction: specs.ActAllow},
			want: []specs.LinuxSyscall{notify, mounts}, reports: []string{"pivot_root", "mount"},
		},
		{
			name: "mount is logged", in: specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{rule(specs.ActLog, "mount")}},
			want: []specs.LinuxSyscall{rule(specs.ActLog, "mount"), notify}, reports: []string{"pivot_root"},
		},
		{
			name: "mount is denied", in: specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{rule(specs.ActAllow, "pivot_root")}},
			want: []specs.LinuxSyscall{notify}, reports: []string{"pivot_root"},
		},
	} {
		got, calls, err := Profile(&c.in, path, "amd64", "pivot_root", "mount")
		if err != nil || !reflect.DeepEqual(got.Syscalls, c.want) || !slices.Equal(calls, c.reports) {
			t.Errorf("%s: got %+v, %q, %v", c.name, got, calls, err)
			continue
		}
		if again, calls, err := Profile(got, path, "amd64", "pivot_root", "mount"); err != nil || !reflect.DeepEqual(again, got) || !slices.Equal(calls, c.reports) {
			t.Errorf("%s, again: %+v, %q, %v", c.name, again, calls, err)
		}
	}
	if p, _, err := Profile(nil, path, "vax", "pivot_root"); err == nil {
		t.Errorf("made up %+v for an unknown architecture", p)
	}
}

func clone(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	if p == nil {
		return nil
	}
	out := *p
	out.Syscalls = nil
	for _, s := range p.Syscalls {
		s.Names = append([]string(nil), s.Names...)
		out.Syscalls = append(out.Syscalls, s)
	}
	return &out
}

func TestRuntime(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	all := func(enabled *bool, libseccomp string, actions ...string) *features.Features {
		return &features.Features{
			Linux:       &features.Linux{Seccomp: &features.Seccomp{Enabled: enabled, Actions: actions}},
			Annotations: map[string]string{libseccompVersion: libseccomp},
		}
	}
	for _, c := range []struct {
		name string
		in   *features.Features
		want bool
	}{
		{"no features command", nil, true},
		{"runc 1.5", all(&yes, "2.5.4", "SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY"), true},
		{"crun 1.21", all(&yes, "2.6.0", "SCMP_ACT_NOTIFY"), true},
		{"nothing said", &features.Features{}, true},
		{"strange version", all(&yes, "two", "SCMP_ACT_NOTIFY"), true},
		{"old library", all(&yes, "2.4.4", "SCMP_ACT_NOTIFY"), false},
		{"without seccomp", all(&no, ""), false},
		{"old runtime", all(nil, "2.5.4", "SCMP_ACT_ALLOW"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if err := Runtime(c.in); (err == nil) != c.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte(`{"ociVersion":"1.0.2","fds":["seccompFd"],"pid":4,"state":{"id":"x","status":"creating"}}`), 1)
	f.Add([]byte(`{"fds":["other","seccompFd"]}`), 2)
	f.Fuzz(func(t *testing.T, data []byte, count int) {
		m, err := parseMessage(data, count)
		if err == nil && (m.Index < 0 || m.Index >= count) {
			t.Errorf("index %d of %d", m.Index, count)
		}
	})
}
