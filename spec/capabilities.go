// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// nestingCaps are the capabilities that mean something inside a user namespace
// (capabilities(7)). Left out are those that only count in the initial one and
// make systemd try what must fail: SYS_RAWIO (sys-kernel-debug.mount),
// SYS_MODULE (systemd-modules-load), SYS_TIME (timesyncd), SYS_PACCT,
// MAC_ADMIN, MAC_OVERRIDE, WAKE_ALARM, BLOCK_SUSPEND, and SYS_RESOURCE, which
// grants nothing there.
var nestingCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
	"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_SYSLOG",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// capabilities gives a root process every capability that means something in
// its user namespace, and another process none but the same bounding set, so
// that a setuid program inside works.
func capabilities(proc *specs.Process, n *Nesting) {
	if n.KeepCaps {
		return
	}
	caps := &specs.LinuxCapabilities{Bounding: slices.Clone(nestingCaps)}
	if proc.User.UID == 0 {
		caps.Effective, caps.Permitted = slices.Clone(nestingCaps), slices.Clone(nestingCaps)
	}
	proc.Capabilities = caps
}
