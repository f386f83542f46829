// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/rig"
)

// status prints a line of a process's /proc/PID/status.
func status(name string) string { return "sed -n 's/^" + name + ":\t//p' /proc/self/status" }

const (
	everyCap = "000001ffffffffff"
	noCap    = "0000000000000000"
	netRaw   = 1 << 13
)

// TestHonoured proves that what a caller asks for is what it gets, nesting or
// not.
func TestHonoured(t *testing.T) {
	each(t, both, func(t *testing.T, n *node) {
		for _, test := range []struct {
			name, config string
			flags        []string
			script, want string
		}{
			{name: "root", script: status("CapEff") + ";" + status("CapBnd") + ";" + status("CapInh") + ";" + status("CapAmb"), want: everyCap + "\n" + everyCap + "\n" + noCap + "\n" + noCap},
			{name: "user", flags: []string{"--user", "1000"}, script: "id -u;" + status("CapEff") + ";" + status("CapPrm") + ";" + status("CapBnd"), want: "1000\n" + noCap + "\n" + noCap + "\n" + everyCap},
			{name: "setuid programs", flags: []string{"--user", "1000", "--allow-new-privs"}, script: "/usr/local/bin/suid-id -u; " + status("NoNewPrivs"), want: "0\n0"},
			{name: "no new privileges", flags: []string{"--user", "1000"}, script: "/usr/local/bin/suid-id -u; " + status("NoNewPrivs"), want: "1000\n1"},
			{name: "capabilities", config: `caps = "honor"`, script: status("CapEff"), want: "00000000a80425fb"},
			{name: "dropped capability", config: `caps = "honor"`, flags: []string{"--cap-drop", "CAP_NET_RAW"}, script: status("CapEff"), want: fmt.Sprintf("%016x", 0xa80425fb&^netRaw)},
			{name: "read-only", flags: []string{"--read-only"}, script: "touch /x 2>/dev/null || echo no; mount -o remount,rw / 2>/dev/null || mount -o remount,bind,rw / 2>/dev/null; touch /x 2>/dev/null && echo written || echo no", want: "no\nno"},
			{name: "hidden files", script: "cat /proc/keys /proc/timer_list | wc -c", want: "0"},
			{name: "off", config: `nesting = "off"`, script: "ls /dev/fuse /dev/.lxc 2>/dev/null; grep -c 'cgroup' /proc/mounts; " + status("CapEff") + "; awk '{print ($2 > 0)}' /proc/self/uid_map", want: "0\n00000000a80425fb\n1"},
			{name: "annotation", config: "[annotations]\nallow = [\"nesting\"]", flags: []string{"--annotation", "io.containerd.isolate.nesting=off"}, script: status("CapEff"), want: "00000000a80425fb"},
			{name: "profile of the client", flags: []string{"--seccomp"}, script: mountSomething, want: "mounted"},
			{name: "profile of the client kept", config: `seccomp = "keep"`, flags: []string{"--seccomp"}, script: mountSomething, want: "denied"},
			{name: "own profile", flags: profile(t, noChmod), script: "chmod 600 /etc/passwd 2>/dev/null || echo denied; " + mountSomething, want: "denied\nmounted"},
			{name: "own strict profile", flags: profile(t, noMount), script: mountSomething, want: "mounted"},
			{name: "own strict profile kept", config: `seccomp = "keep"`, flags: profile(t, noMount), script: mountSomething, want: "denied"},
		} {
			t.Run(test.name, func(t *testing.T) {
				rig.Configure(t, test.config)
				r := run(t, n, image.Demo, test.flags, "sh", "-c", test.script)
				if got := strings.TrimSpace(r.Stdout); got != test.want || r.Err() != nil {
					t.Errorf("%s\nprinted %q, want %q, exited with %d\n%s", test.script, got, test.want, r.Code, r.Stderr)
				}
			})
		}
	})
}

const mountSomething = "mount -t tmpfs t /mnt 2>/dev/null && echo mounted || echo denied"

// Profiles as people write them: one forbids, one allows.
const (
	noChmod = `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}]}`
	noMount = `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount", "fsopen", "move_mount"], "action": "SCMP_ACT_ERRNO"}]}`
)

func profile(t *testing.T, text string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "profile.json")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return []string{"--seccomp", "--seccomp-profile", path}
}

// TestRefused proves that a container which asks for what it may not have is
// told so.
func TestRefused(t *testing.T) {
	each(t, newest, func(t *testing.T, n *node) {
		for _, test := range []struct {
			name, config, annotation string
			want                     []string
		}{
			{name: "not allowed", annotation: "nesting=off", want: []string{`"io.containerd.isolate.nesting"`, "not allowed on this host", "annotations.allow"}},
			{name: "another allowed", config: "[annotations]\nallow = [\"caps\"]", annotation: "nesting=off", want: []string{"not allowed on this host"}},
			{name: "unknown", config: "[annotations]\nallow = [\"nesting\"]", annotation: "nestling=off", want: []string{`"io.containerd.isolate.nestling"`, "unknown", "nesting"}},
			{name: "no such value", config: "[annotations]\nallow = [\"nesting\"]", annotation: "nesting=of", want: []string{`"io.containerd.isolate.nesting"`, `"of"`, "full"}},
		} {
			t.Run(test.name, func(t *testing.T) {
				rig.Configure(t, test.config)
				r := run(t, n, image.Demo, []string{"--annotation", "io.containerd.isolate." + test.annotation}, "true")
				for _, want := range test.want {
					if r.Code == 0 || !strings.Contains(r.Stderr, want) {
						t.Errorf("exited with %d, %q, want %q in it", r.Code, r.Stderr, want)
					}
				}
			})
		}
	})
}

// TestPrivileged proves by trying that a privileged container is nobody on the
// host.
func TestPrivileged(t *testing.T) {
	each(t, both, func(t *testing.T, n *node) {
		c := start(t, n, image.Demo, []string{"--privileged", "--memory-limit", memoryLimit}, "sleep", "infinity")
		c.expect(t, everyCap, status("CapEff"))
		c.expect(t, "mounted", mountSomething)
		c.expect(t, "", "find /dev -type b 2>/dev/null; true")
		c.expect(t, "", "for f in $(find /dev -type c 2>/dev/null); do case $f in /dev/null|/dev/zero|/dev/full|/dev/*random|/dev/tty|/dev/console|/dev/pt*|/dev/fuse|/dev/net/tun|/dev/kmsg) ;; *) echo $f ;; esac; done")
		c.expect(t, "0", "wc -c </dev/kmsg") // a stand-in for the host's
		// What it writes is what is there, so that nothing comes of a failure.
		before := hostSysctls(t)
		c.sh(t, "find /proc/sys/vm /proc/sys/kernel /proc/sys/fs -type f | while read f; do v=$(cat $f 2>/dev/null) && echo \"$v\" >$f; done 2>/dev/null; true")
		written := c.sh(t, `for f in kernel/core_pattern kernel/modprobe kernel/printk kernel/perf_event_paranoid vm/swappiness fs/file-max fs/suid_dumpable kernel/panic_on_warn; do
			test -e /proc/sys/$f && v=$(cat /proc/sys/$f) && { echo "$v" >/proc/sys/$f; } 2>/dev/null && echo $f; done; true`)
		if written != "" {
			t.Errorf("sysctls of the host can be written: %s", written)
		}
		c.sh(t, "echo 1 >/proc/sys/kernel/panic && echo 1 >/proc/sys/vm/overcommit_memory") // stand-ins
		if after := hostSysctls(t); after != before {
			t.Errorf("sysctls of the host were %s and are %s", before, after)
		}
		for _, file := range []string{"memory/memory.limit_in_bytes", "cpu/cpu.cfs_quota_us", "pids/pids.max", "devices/devices.allow", "memory.max", "cpu.max", "pids.max"} {
			c.expect(t, "", "f=/sys/fs/cgroup/"+file+"; if test -e $f; then { echo 1000000000000 >$f; } 2>/dev/null && echo raised; fi; true")
		}
	})
}

func hostSysctls(t *testing.T) string {
	t.Helper()
	var all []string
	for _, name := range []string{
		"kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "vm/panic_on_oom", "vm/max_map_count", "kernel/core_pattern", "vm/swappiness",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes", "net/netfilter/nf_conntrack_max",
	} {
		text, err := os.ReadFile("/proc/sys/" + name)
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(name, "net/") {
			continue // of a module
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, name+"="+strings.TrimSpace(string(text)))
	}
	return strings.Join(all, " ")
}

// TestDeviceOfTheImage proves that a node of the host's disk that is in the
// container's layer, where the container's root owns it, opens nothing.
func TestDeviceOfTheImage(t *testing.T) {
	each(t, both, func(t *testing.T, n *node) {
		for _, config := range []string{"", `nesting = "off"`} {
			t.Run(config, func(t *testing.T) {
				rig.Configure(t, config)
				c := start(t, n, image.Demo, nil, "sleep", "infinity")
				var stat unix.Stat_t
				if err := unix.Stat("/", &stat); err != nil {
					t.Fatal(err)
				}
				upper := c.upper(t)
				n.Ctr(t.Context(), "tasks", "rm", "--force", c.id).Must(t)
				for name, dev := range map[string]uint64{"disk": stat.Dev, "memory": unix.Mkdev(1, 1)} {
					kind := uint32(unix.S_IFBLK)
					if name == "memory" {
						kind = unix.S_IFCHR
					}
					path := filepath.Join(upper, name)
					if err := unix.Mknod(path, kind|0o666, int(dev)); err != nil {
						t.Fatal(err)
					}
					if err := os.Chmod(path, 0o666); err != nil {
						t.Fatal(err)
					}
				}
				n.Ctr(t.Context(), "tasks", "start", "-d", "--null-io", c.id).Must(t)
				c.expect(t, "0 0", "stat -c '%u %g' /disk")
				for _, path := range []string{"/disk", "/memory"} {
					if r := c.try(t, "head -c1 "+path+" | wc -c"); strings.TrimSpace(r.Stdout) != "0" {
						t.Errorf("read from %s in a container: %q", path, slices.Concat([]byte(r.Stdout), []byte(r.Stderr)))
					}
				}
			})
		}
	})
}
