// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"slices"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// nestingSyscalls are what nesting needs beyond containerd's default profile
// for an ordinary container: what that profile allows for nestingCaps, and
// pivot_root, which inner runtimes need although it never allows it. For keyctl see
// keyOperations.
//
// Four of those stay closed; see hostSyscalls. TestNestingSyscalls compares the list
// with containerd's profile.
var nestingSyscalls = []string{
	"chroot", "clone", "clone3", "fsconfig", "fsmount", "fsopen", "fspick", "get_mempolicy", "kcmp",
	"lookup_dcookie", "mbind", "mount", "mount_setattr", "move_mount", "open_by_handle_at", "open_tree", "pidfd_getfd", "pivot_root",
	"process_madvise", "process_vm_readv", "process_vm_writev", "ptrace", "quotactl", "quotactl_fd", "reboot", "set_mempolicy", "set_mempolicy_home_node",
	"setdomainname", "sethostname", "setns", "umount", "umount2", "unshare", "vhangup",
}

// hostSyscalls are what containerd's profile allows for nestingCaps and nesting does
// not need. A profile is for all users of a container, and where a setting of the
// host is looser than usual, these take no capability: syslog reads the host's log
// (kernel.dmesg_restrict=0), bpf and perf_event_open hand the kernel programs
// (kernel.unprivileged_bpf_disabled=0, kernel.perf_event_paranoid below 3), and
// fanotify_init is for everybody since Linux 5.13. With a capability of a user
// namespace they do nothing more: the kernel wants CAP_SYSLOG, CAP_BPF and
// CAP_PERFMON in the initial one. Runtimes and systemd inside take EPERM for an
// answer, as they get it from the kernel elsewhere.
//
// A caller's own profile that allows them keeps them.
var hostSyscalls = []string{"bpf", "fanotify_init", "perf_event_open", "syslog"}

const keyctl = "keyctl"

// keyOperations are the operations of keyctl(2) by which inner runtimes and systemd
// give each program a session keyring (include/uapi/linux/keyctl.h).
//
// No operation that stores a key is among them, nor are add_key(2) and request_key(2)
// allowed: the kernel allows 20,000 bytes to each user, a container has 65536 users,
// and no memory cgroup is charged for keys (security/keys). The keyrings that remain
// last no longer than the process that made them, except for two of each user.
var keyOperations = []uint32{
	0,  // GET_KEYRING_ID
	1,  // JOIN_SESSION_KEYRING
	3,  // REVOKE
	5,  // SETPERM
	6,  // DESCRIBE
	7,  // CLEAR
	9,  // UNLINK
	11, // READ
	18, // SESSION_TO_PARENT
	21, // INVALIDATE
	31, // CAPABILITIES
}

// keyRules allow keyOperations, and to link the user's keyring (-4) into the
// session's (-3), as systemd and pam_keyinit do.
func keyRules() []specs.LinuxSyscall {
	const link, userKeyring, sessionKeyring = 8, ^uint32(3), ^uint32(2)
	return append(allowWords(keyctl, keyOperations),
		allowIf(keyctl, wordIs(0, 0, link), wordIs(1, 0, userKeyring), wordIs(2, 0, sessionKeyring)))
}

// seccompProfile brings the profile to what nesting needs. Without one the
// container gets containerd's default: the kernel trusts user namespaces with
// more than a container needs (io_uring, userfaultfd, vsock). A caller's own
// profile is widened by exactly nestingSyscalls.
func seccompProfile(s *specs.Spec, p *Plan) {
	if p.Nesting.KeepSeccomp {
		return
	}
	if s.Linux.Seccomp == nil {
		caps := *s.Process
		caps.Capabilities = &specs.LinuxCapabilities{Bounding: nestingCaps}
		s.Linux.Seccomp = seccomp.DefaultProfile(&specs.Spec{Process: &caps, Linux: s.Linux})
		// Nobody runs x32 programs (kernels have them switched off), and the
		// runtime compiles the profile once for each ABI: 7 ms of CPU.
		s.Linux.Seccomp.Syscalls = without(s.Linux.Seccomp.Syscalls, hostSyscalls)
		s.Linux.Seccomp.Architectures = slices.DeleteFunc(s.Linux.Seccomp.Architectures, func(a specs.Arch) bool { return a == specs.ArchX32 })
	}
	s.Linux.Seccomp = widen(s.Linux.Seccomp)
}

// widen returns the profile with nestingSyscalls and keyOperations allowed, and with
// fewer rules where those do the same ([mergeRules]). A syscall for which
// the profile has an action that somebody waits for (a notifier, a tracer, the
// log) is left alone.
func widen(in *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	out := *in
	out.Syscalls = nil
	open := append(slices.Clone(nestingSyscalls), keyctl)
	for _, rule := range in.Syscalls {
		if rule.Action == specs.ActErrno || rule.Action == specs.ActAllow && !slices.Contains(rule.Names, keyctl) {
			continue
		}
		if rule.Action == specs.ActAllow {
			rule.Names = []string{keyctl} // in the way in which the caller allows it
		}
		open = slices.DeleteFunc(open, func(name string) bool { return slices.Contains(rule.Names, name) })
	}
	// libseccomp refuses two actions for one syscall, so the narrower rule goes.
	out.Syscalls = without(in.Syscalls, open)
	if in.DefaultAction == specs.ActAllow {
		return &out
	}
	out.Syscalls = mergeRules(out.Syscalls)
	if i := slices.Index(open, keyctl); i >= 0 {
		open = slices.Delete(open, i, i+1)
		out.Syscalls = append(out.Syscalls, keyRules()...)
	}
	if len(open) > 0 {
		out.Syscalls = append(out.Syscalls, specs.LinuxSyscall{Names: open, Action: specs.ActAllow})
	}
	return &out
}

// without takes system calls out of rules that allow or deny them.
func without(rules []specs.LinuxSyscall, names []string) []specs.LinuxSyscall {
	var out []specs.LinuxSyscall
	for _, rule := range rules {
		rule.Names = slices.DeleteFunc(slices.Clone(rule.Names), func(name string) bool {
			return (rule.Action == specs.ActAllow || rule.Action == specs.ActErrno) && slices.Contains(names, name)
		})
		if len(rule.Names) > 0 {
			out = append(out, rule)
		}
	}
	return out
}
