// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// nestingCaps are the capabilities that mean something inside a user namespace
// (capabilities(7)), by which the seccomp profile is chosen.
var nestingCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
	"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_SYSLOG",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// fullCaps are all capabilities. Those besides nestingCaps only count in the
// initial user namespace; they are there because runtimes inside ask for them,
// and fail if they do not get them: Docker before 23 gives every capability it
// knows to its privileged containers ("unable to apply caps").
var fullCaps = append([]string{
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_PACCT", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
}, nestingCaps...)

// capabilities gives a root process every capability, in the container's user
// namespace. Another process gets no capability, and the same bounding set, so that
// setuid programs inside work.
func capabilities(proc *specs.Process, n *Nesting) {
	if n.KeepCaps {
		return
	}
	caps := &specs.LinuxCapabilities{Bounding: slices.Clone(fullCaps)}
	if proc.User.UID == 0 {
		caps.Effective, caps.Permitted = slices.Clone(fullCaps), slices.Clone(fullCaps)
	}
	proc.Capabilities = caps
}
