// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// syscallName is the one system call that is reported. Every OCI runtime makes
// it once for each container, after the container's /proc is mounted.
const syscallName = "pivot_root"

var (
	// errTaken means that the profile has a listener of its own, which must keep
	// working: the kernel lets a process have only one (seccomp(2),
	// SECCOMP_FILTER_FLAG_NEW_LISTENER, EBUSY).
	errTaken = errors.New("the seccomp profile has a listener of its own")
	// errDenied means that the profile does not plainly allow pivot_root: then no
	// container can be started inside, and a notification would weaken the profile.
	errDenied = errors.New("the seccomp profile does not allow " + syscallName)
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

// Profile returns a copy of the profile in which pivot_root is reported to the
// listener (a socket made by [Listen]) instead of allowed. A nil profile, which
// allows everything, becomes one that does so and reports pivot_root; goarch is
// the machine's architecture in Go's spelling.
//
// It fails with errTaken or errDenied, and the caller then uses the profile unchanged. A
// profile that Profile itself has returned comes back unchanged.
func Profile(p *specs.LinuxSeccomp, listener, goarch string) (*specs.LinuxSeccomp, error) {
	if p == nil {
		architectures := nativeArchitectures[goarch]
		if architectures == nil {
			return nil, fmt.Errorf("make a seccomp profile for %s: its architectures are unknown", goarch)
		}
		p = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: architectures}
	}
	if p.ListenerPath == listener && len(p.Syscalls) > 0 && isNotify(p.Syscalls[len(p.Syscalls)-1]) {
		return p, nil
	}
	if p.ListenerPath != "" || p.ListenerMetadata != "" || p.DefaultAction == specs.ActNotify {
		return nil, errTaken
	}
	allowed := allows(p.DefaultAction)
	out := *p
	out.Syscalls = nil
	for _, rule := range p.Syscalls {
		if rule.Action == specs.ActNotify {
			return nil, errTaken
		}
		if slices.Contains(rule.Names, syscallName) {
			if !allows(rule.Action) || len(rule.Args) > 0 {
				return nil, errDenied
			}
			allowed = true
			// Two rules for one system call: libseccomp refuses (EEXIST).
			rule.Names = slices.DeleteFunc(slices.Clone(rule.Names), func(n string) bool { return n == syscallName })
			if len(rule.Names) == 0 {
				continue
			}
		}
		out.Syscalls = append(out.Syscalls, rule)
	}
	if !allowed {
		return nil, errDenied
	}
	out.Syscalls = append(out.Syscalls, specs.LinuxSyscall{Names: []string{syscallName}, Action: specs.ActNotify})
	out.ListenerPath = listener
	return &out, nil
}

func allows(a specs.LinuxSeccompAction) bool { return a == specs.ActAllow || a == specs.ActLog }

func isNotify(rule specs.LinuxSyscall) bool {
	return rule.Action == specs.ActNotify && slices.Equal(rule.Names, []string{syscallName}) && len(rule.Args) == 0
}
