// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The system calls that can be reported.
const (
	// PivotRoot is made by every OCI runtime once for each container, after the
	// container's /proc is mounted.
	PivotRoot = "pivot_root"
	// Sysinfo tells programs that do not read /proc how much memory there is.
	Sysinfo = "sysinfo"
	// Mount is reported if it has none of the flags of mountFlags.
	Mount = "mount"
)

// mountFlags are flags with which no program mounts an overlay that it writes to, and of
// which a runtime's mounts for a container have one each, but for its overlay.
const mountFlags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_REMOUNT | unix.MS_BIND | unix.MS_MOVE |
	unix.MS_UNBINDABLE | unix.MS_PRIVATE | unix.MS_SLAVE | unix.MS_SHARED

// anyOf tells, flag by flag, whether an argument has one of them: libseccomp has no word for
// it. No call is among these and those without any, so that the order of rules does not matter.
func anyOf(index uint, flags uint64) (list []specs.LinuxSeccompArg) {
	for ; flags != 0; flags &= flags - 1 {
		flag := flags & -flags
		list = append(list, specs.LinuxSeccompArg{Index: index, Value: flag, ValueTwo: flag, Op: specs.OpMaskedEqual})
	}
	return list
}

var (
	// errTaken means that the profile has a listener of its own, which must keep
	// working: the kernel lets a process have only one (seccomp(2),
	// SECCOMP_FILTER_FLAG_NEW_LISTENER, EBUSY).
	errTaken = errors.New("the seccomp profile has a listener of its own")
	// ErrDenied means that the profile does not plainly allow a system call: then a
	// notification would weaken the profile.
	ErrDenied = errors.New("the seccomp profile does not allow the system call")
)

// nativeArchitectures are the ABIs a processor runs. A filter must name all of
// them: libseccomp kills callers of the others.
var nativeArchitectures = map[string][]specs.Arch{
	"amd64":   {specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
	"arm64":   {specs.ArchAARCH64, specs.ArchARM},
	"ppc64le": {specs.ArchPPC64LE},
	"riscv64": {specs.ArchRISCV64},
	"s390x":   {specs.ArchS390X, specs.ArchS390},
}

// Profile returns a copy of the profile in which system calls are reported to the
// listener (a socket made by [Listen]) instead of allowed: those of calls that the profile
// plainly allows, which it returns too. A nil profile, which allows everything, becomes
// one that does so and reports calls; goarch is the machine's architecture in Go's
// spelling.
//
// It fails with errTaken or ErrDenied, and the caller then uses the profile unchanged. A
// profile that Profile itself has returned comes back unchanged.
func Profile(p *specs.LinuxSeccomp, listener, goarch string, calls ...string) (*specs.LinuxSeccomp, []string, error) {
	if p == nil {
		architectures := nativeArchitectures[goarch]
		if architectures == nil {
			return nil, nil, fmt.Errorf("make a seccomp profile for %s: its architectures are unknown", goarch)
		}
		p = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: architectures}
	}
	if names := reported(p); p.ListenerPath == listener && len(names) > 0 && subset(names, calls) {
		return p, names, nil
	}
	if p.ListenerPath != "" || p.ListenerMetadata != "" || p.DefaultAction == specs.ActNotify ||
		slices.ContainsFunc(p.Syscalls, func(r specs.LinuxSyscall) bool { return r.Action == specs.ActNotify }) {
		return nil, nil, errTaken
	}
	calls = slices.DeleteFunc(slices.Clone(calls), func(name string) bool { return !plainlyAllowed(p, name) })
	if len(calls) == 0 {
		return nil, nil, ErrDenied
	}
	out := *p
	out.Syscalls = nil
	for _, rule := range p.Syscalls {
		// Two rules for one system call: libseccomp refuses (EEXIST).
		if slices.ContainsFunc(calls, func(name string) bool { return slices.Contains(rule.Names, name) }) {
			rule.Names = slices.DeleteFunc(slices.Clone(rule.Names), func(name string) bool { return slices.Contains(calls, name) })
			if len(rule.Names) == 0 {
				continue
			}
		}
		out.Syscalls = append(out.Syscalls, rule)
	}
	whole := slices.DeleteFunc(slices.Clone(calls), func(name string) bool { return name == Mount })
	if len(whole) > 0 {
		out.Syscalls = append(out.Syscalls, specs.LinuxSyscall{Names: whole, Action: specs.ActNotify})
	}
	if len(whole) < len(calls) {
		if out.DefaultAction != specs.ActAllow { // libseccomp refuses the rule that is the default (EACCES)
			for _, flag := range anyOf(3, mountFlags) {
				out.Syscalls = append(out.Syscalls, mountRule(specs.ActAllow, flag))
			}
		}
		out.Syscalls = append(out.Syscalls, mountRule(specs.ActNotify, specs.LinuxSeccompArg{Index: 3, Value: mountFlags, Op: specs.OpMaskedEqual}))
	}
	out.ListenerPath = listener
	return &out, calls, nil
}

// plainlyAllowed tells whether a profile allows a system call whatever its arguments.
func plainlyAllowed(p *specs.LinuxSeccomp, name string) bool {
	allowed := allows(p.DefaultAction, name)
	for _, rule := range p.Syscalls {
		if slices.Contains(rule.Names, name) {
			if !allows(rule.Action, name) || len(rule.Args) > 0 {
				return false
			}
			allowed = true
		}
	}
	return allowed
}

// allows tells whether an action lets a system call go on. Mounts that are to be logged are
// not reported, so that all of them are logged.
func allows(a specs.LinuxSeccompAction, name string) bool {
	return a == specs.ActAllow || a == specs.ActLog && name != Mount
}

// mountRule is a rule for mount(2) by its flags.
func mountRule(action specs.LinuxSeccompAction, flags specs.LinuxSeccompArg) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: []string{Mount}, Action: action, Args: []specs.LinuxSeccompArg{flags}}
}

// reported lists the system calls that a profile reports.
func reported(p *specs.LinuxSeccomp) (names []string) {
	for _, rule := range p.Syscalls {
		if rule.Action == specs.ActNotify {
			names = append(names, rule.Names...)
		}
	}
	return names
}

func subset(names, of []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(of, name) })
}
