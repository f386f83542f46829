// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// row says what must become of attempts. The first row that an attempt fits
// counts.
type row struct {
	// name is a regular expression for the whole name.
	name string
	// kinds are those of the containers that the row is for, all by default; with
	// "!", those it is not for.
	kinds string
	// want are the results that are right, separated by spaces. "*" stands for
	// any: the effect is the container's own, whatever it is.
	want string
	// filtered replaces want where there is a seccomp profile.
	filtered string
	// why tells why something may be allowed.
	why string
	// cgroup is the version of cgroups with which it is tried, both by default.
	cgroup int

	compiled *regexp.Regexp
	used     bool
}

func (r *row) fits(k kind, name string) bool {
	not, negated := strings.CutPrefix(r.kinds, "!")
	if r.elsewhere() || r.kinds != "" && slices.Contains(strings.Fields(not), k.name) == negated {
		return false
	}
	if r.compiled == nil {
		r.compiled = regexp.MustCompile("^(?:" + r.name + ")$")
	}
	return r.compiled.MatchString(name)
}

// elsewhere reports whether nothing fits the row on this machine.
func (r *row) elsewhere() bool { return r.cgroup != 0 && (r.cgroup == 2) != unified() }

func (r *row) results(k kind) []string {
	if r.filtered != "" && k.toml == "" {
		return strings.Fields(r.filtered)
	}
	return strings.Fields(r.want)
}

// judge compares attempts with the table.
func judge(t *testing.T, k kind, attempts []attempt) {
	t.Helper()
	for _, a := range attempts {
		i := slices.IndexFunc(table, func(r *row) bool { return r.fits(k, a.Name) })
		if i < 0 {
			t.Errorf("%s: %s (%s) is not in the table", a.Name, a.Result, a.Detail)
			continue
		}
		table[i].used = true
		result := strings.ReplaceAll(a.Result, " ", "_")
		if want := table[i].results(k); !slices.Contains(want, result) && !slices.Contains(want, "*") {
			t.Errorf("%s: %s (%s), want %q", a.Name, a.Result, a.Detail, want)
		}
	}
}

func TestTable(t *testing.T) {
	for _, r := range table {
		allows := strings.Contains(r.want+" "+r.filtered, "allowed") || strings.Contains(r.want, "*")
		if allows && r.why == "" {
			t.Errorf("%s: allowed without a reason", r.name)
		}
	}
}

// table has the groups in the order of kinds.
var table = slices.Concat(general, tableMounts, tableProcesses, tableDevices, tableSyscalls, tableLimits, tableSweep, tablePropagation)

var general = []*row{
	{name: `end/\w+|watching`, want: "allowed", why: "a group has come to its end"},
	{name: `fd:[012]`, want: "open", why: "pipes, or /dev/null"},
	{name: `cwd`, want: "/"},
	{name: `watch-closed`, want: "EACCES"}, // a runtime on its way in
}

var tableMounts = []*row{
	{name: `[a-z-]+:/`, kinds: "read-only", want: "EROFS EPERM EINVAL ENOSYS"}, // the overlay itself is read-only
	{name: `(\w+/)?(write|reopen):/vol/.*`, want: "EROFS"},
	{name: `(\w+/)?opentree-attr:/vol/.*`, want: "EPERM ENOSYS"}, // Linux 6.15; libseccomp may not know it
	{name: `mntns/proc-root.*:/vol/.*`, want: "EINVAL"},          // of another mount namespace
	{name: `userns/proc-root.*:/vol/.*`, want: "EACCES"},         // /proc/1/root, of another user namespace
	{name: `userns/move:/vol/.*`, want: "EINVAL"},                // locked to its place
	{name: `(\w+/)?overlay:/vol/ro`, want: "EINVAL EROFS"},
	{name: `(\w+/)?(remount|superblock|setattr.*|proc-.*|fspick|r?bind-.*|fd-.*|clone-.*|move):/vol/.*`, want: "EPERM"},
	{name: `superblock:/`, want: "EPERM"},
	{name: `remount:/sys`, kinds: "host-network", want: "EPERM"}, // a clone of the host's, locked
	{name: `remount:/sys`, want: "allowed", why: "sysfs of the container's own network namespace; the files in it stay the host's root's"},
	{
		name: `remount:.*|unmask:.*`, want: "allowed EINVAL",
		why: "the runtime has covered these inside the container; what protects them is that they belong to the host's root",
	},
	{name: `chroot`, want: "same_root"},
}

var tableProcesses = []*row{
	{name: `pid:(proc)`, want: "ENOENT"},
	{name: `pid:move_pages`, want: "ESRCH", filtered: "EPERM"},
	{name: `pid:.*`, want: "ESRCH"},
	{name: `namespace:net`, kinds: "host-network", want: "allowed", why: "it was asked for"},
	{name: `namespace:parent.*`, want: "EPERM"},
	{name: `namespace:(next|previous).*`, want: "EPERM ENOTTY", why: "since Linux 6.12"},
	{name: `namespace:owner-net|namespace:enter-net`, kinds: "host-network", want: "EPERM"},
	{name: `namespace:owner-user`, want: "EPERM"},
	{name: `namespace:owner-.*`, want: "own"},
	{name: `namespace:enter-net`, want: "allowed", why: "its own"},
	{name: `namespace:listmount`, want: "ENOENT EPERM ENOSYS"},
	{name: `socket:(abstract|loopback)`, kinds: "host-network", want: "allowed", why: "the host's network was asked for"},
	{name: `socket:(abstract|loopback)`, want: "ECONNREFUSED"},
	{name: `socket:path`, want: "ENOENT"},
	{name: `key:own-session`, want: "own"},
	{name: `key:[^/]*/(timeout|chown|link)`, want: "EACCES", filtered: "EPERM"},
	{name: `key:.*`, want: "EACCES"},
	{name: `ipc:.*`, want: "ENOENT"},

	{name: `(chown|chgrp|chown-rootfs):nobody`, want: "allowed", why: "one of the container's ids"},
	{name: `(chown|chgrp|chown-rootfs|setuid|setgid):.*`, want: "EINVAL"},
	{name: `nested-map-own`, want: "allowed", why: "the container's own ids, for a container in it"},
	{name: `nested-map.*`, want: "EPERM"},
	{name: `trusted-attribute`, want: "EPERM"},
	{
		name: `setuid-program|capable-program`, want: "allowed",
		why: "ids on a volume are the container's own; it gives users of the same volume the rights of its root in their own container",
	},
	{name: `left/.*`, want: "*", why: "things for another container to find"},
	{name: `handle:volume-file`, want: "EPERM allowed", why: "below the root of the mount, which is the container's (Linux 6.11)"},
	{name: `handle:.*`, want: "ESTALE EPERM the_kernel_has_none"},
}

var tableDevices = []*row{
	{name: `node.*:/escape-nodes/.*`, kinds: "off", want: "EACCES EPERM"}, // nodev
	{
		name: `node.*:/vol/rw/nodes/console`, kinds: "off", want: "EPERM allowed",
		why: "crun adds a rule that allows it; without nesting only the host's root can put a node where it opens",
	},
	{name: `node(-write)?:.*/null`, want: "allowed", why: "it leads nowhere"},
	{name: `node(-write)?:.*/ptmx`, want: "ENODEV ENOENT"}, // beside no devpts
	{name: `node(-write)?:.*/pts`, want: "EIO"},            // on no devpts
	{name: `node.*`, want: "EPERM"},
	{name: `mknod.*`, want: "EPERM"},
	{name: `open:/proc/(kmsg|kcore|sysrq-trigger)`, want: "EACCES EPERM ENOENT null"},
	{name: `open:/dev/.*`, want: "ENOENT"},
	{name: `present:/dev/(null|kmsg) 1:3`, want: "allowed", why: "/dev/null, also in place of the kernel's log"},
	{name: `present:/dev/(zero 1:5|full 1:7|random 1:8|urandom 1:9)`, want: "allowed", why: "nothing to gain"},
	{name: `present:/dev/tty 5:0`, want: "ENXIO"},
	{name: `present:/dev/pts/ptmx 5:2`, want: "allowed", why: "of the container's own devpts"},
	{name: `present:/dev/fuse 10:229`, want: "allowed", why: "FUSE mounts belong to the user namespace that makes them"},
	{name: `present:/dev/net/tun 10:200`, want: "allowed", why: "interfaces belong to the network namespace"},
	{
		name: `(type|fsopen):(sysfs|tmpfs|proc|cgroup2|ramfs|devpts|mqueue)`, want: "allowed",
		why: "instances of the container's namespaces, or memory of its cgroup",
	},
	{name: `(type|fsopen):cpuset`, want: "allowed EPERM", why: "a view of its own groups; only the host makes a hierarchy"},
	{name: `(type|fsopen):binfmt_misc`, want: "allowed EPERM", why: "an instance of the user namespace's own since Linux 6.7"},
	{name: `(type|fsopen):(overlay|fuse)`, want: "EINVAL", why: "allowed with options"},
	{name: `(type|fsopen):.*`, want: "EPERM"},
	{name: `image`, want: "EPERM"},
}

var tableSyscalls = []*row{
	{name: `(init|finit|delete)_module|kexec_load|kexec_file_load|ioperm|iopl`, want: "EPERM ENOSYS"},
	{name: `reboot-cad`, want: "EINVAL"}, // only what ends the pid namespace has a meaning in it
	{name: `sethostname|setdomainname`, want: "allowed", why: "the container's own UTS namespace"},
	{name: `perf_event_open-self`, want: "allowed EACCES", filtered: "EPERM", why: "its own process, without the kernel's part"},
	{name: `perf_event_open-kernel`, want: "EACCES", filtered: "EPERM"},
	{
		name: `userfaultfd-user|io_uring_setup|socket:vsock`, want: "allowed EPERM", filtered: "EPERM",
		why: "the kernel gives these to everybody; seccomp takes them away unless the administrator says seccomp = keep",
	},
	{name: `socket:alg`, want: "EAFNOSUPPORT allowed", filtered: "EPERM", why: "as above"},
	{name: `socket:packet`, want: "allowed", why: "the container's own network namespace"},
	{name: `audit`, want: "EPERM ECONNREFUSED EPROTONOSUPPORT"},
	{
		name: `settimeofday|clock_settime|adjtimex|swapon|swapoff|quotactl|quotactl_fd|acct|vhangup|syslog-.*|bpf-.*|userfaultfd-kernel|fanotify-.*`,
		want: "EPERM",
	},
}

var tableLimits = []*row{
	{name: `limits/tried`, want: "*", why: "how many files were tried; see TestEscape"},
	{name: `cgroup:(fresh:)?[^/]+/(cgroup\.procs|tasks)`, want: "allowed", why: "delegated: by these its processes are moved between its own groups"},
	{
		name: `cgroup:(fresh:)?[^/]+/(cgroup\.(threads|subtree_control)|memory\.(oom\.group|reclaim))`, cgroup: 2, want: "allowed",
		why: "named in /sys/kernel/cgroup/delegate, since they loosen nothing",
	},
	{name: `cgroup-mount:[^,=_]*`, cgroup: 1, want: "allowed", why: "shows the container's own group as the root"},
	{name: `cgroup-mount:name=systemd`, cgroup: 1, want: "allowed", why: "the same"},
	{name: `cgroup-mount:.*`, want: "EPERM EINVAL"},
	{name: `cgroup2-mount`, want: "allowed", why: "shows the container's own group as the root"},
	{name: `cgroup-others:.*`, cgroup: 1, want: "0"},
	{name: `cgroup-agent:.*`, cgroup: 1, want: "EACCES"},
	{name: `cgroup2-mkdir`, cgroup: 1, want: "EACCES"},
	{name: `cgroup2-mkdir`, cgroup: 2, want: "allowed", why: "below the container's own group"},
	{name: `subgroup:(devices\..*)`, cgroup: 1, want: "EPERM"},
	{name: `subgroup:cpuset\.cpus`, cgroup: 1, want: "EACCES"},
	{name: `subgroup:cpuset\.cpus`, cgroup: 2, want: "allowed ERANGE", why: "what counts is cpuset.cpus.effective; see the next"},
	{name: `subgroup:cpuset\.cpus\.effective`, cgroup: 2, want: "0"},
	{name: `subgroup:cpuset\.cpus\.partition`, cgroup: 2, want: "invalid"},
	{name: `subgroup:cpu\.(cfs|rt)_.*`, cgroup: 1, want: "EINVAL"},
	{name: `subgroup:cpu\.max`, cgroup: 2, want: "allowed", why: "the limit of the group above holds as well"},
	{name: `subgroup:host-process`, want: "ESRCH"},
	{name: `subgroup:memory\.(limit_in_bytes|max)`, want: "allowed", why: "the limit of the group above holds as well; see the next"},
	{name: `subgroup:memory`, want: "signal:_killed"},
	{name: `rlimit:.*`, want: "EPERM unlimited"},
	{name: `oom_score_adj|nice`, want: "EACCES"},
	{name: `realtime|ioprio`, want: "EPERM"},
	{name: `mlock`, want: "ENOMEM"},
}

const anySweep = `(write|open):(fresh:)?`

var tableSweep = []*row{
	{name: `sweep/tried`, want: "*", why: "how many files were tried; see TestEscape"},
	{name: `fresh:sys`, kinds: "host-network", want: "EPERM"},
	{name: `fresh:.*`, want: "allowed", why: "instances of the container's own namespaces, in which nothing is covered"},
	{
		name: anySweep + `/proc/sys/net/netfilter/nf_hooks_lwtunnel`, kinds: "!host-network", want: "*",
		why: "a switch of the whole kernel that Linux gives to whoever owns a network namespace, as every user of the host may; it runs netfilter on encapsulated packets",
	},
	{name: `write:/proc/sys/vm/(overcommit_memory|panic_on_oom|max_map_count)`, want: "allowed", why: "a file that stands in for it"},
	{name: `write:/proc/sys/kernel/(panic|panic_on_oops|keys/root_max(keys|bytes))`, want: "allowed", why: "a file that stands in for it"},
	{name: anySweep + `/proc/sys/net/.*`, kinds: "!host-network", want: "*", why: "the container's own network namespace"},
	{name: anySweep + `/sys/devices/virtual/net/lo/.*`, kinds: "!host-network", want: "*", why: "the loopback of its own network namespace"},
	{name: anySweep + `/proc/sys/(fs/mqueue/.*|kernel/((msg|sem|shm)\w*|auto_msgmni))`, want: "*", why: "the container's own IPC namespace"},
	{name: anySweep + `/proc/sys/kernel/(ns_last_pid|pid_max)`, want: "*", why: "the container's own pid namespace (pid_max since Linux 6.14)"},
	{name: anySweep + `/proc/sys/user/max_\w+`, want: "*", why: "limits of the container's own user namespace, below those of the host"},
	{name: anySweep + `/proc/pressure/.*`, want: "EINVAL", why: "everybody may ask for notifications"},
}

var tablePropagation = []*row{
	{name: `share:.*|mount:.*|bind:.*|unbind:.*|unmount:.*|pivot_root`, want: "*", why: "in the container's own mount namespace; the host's are compared"},
}
