// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

func processOptions(t *testing.T, d *daemon) {
	for _, test := range []struct {
		flags        []string
		script, want string
	}{
		{[]string{"--user", "1000:33"}, "id", "uid=1000(user) gid=33(www-data) groups=33(www-data)"},
		{[]string{"--user", "user"}, "/usr/local/bin/suid-id -u", "0"},
		{[]string{"--user", "1000", "--group-add", "33"}, "id -G", "1000 33"},
		{[]string{"--workdir", "/new/dir"}, "pwd; stat -c %u /new", "/new/dir\n0"},
		{[]string{"--env", "A=b", "--hostname", "box", "--domainname", "example"}, "echo $A $(hostname) $(cat /proc/sys/kernel/domainname)", "b box example"},
		{[]string{"--ulimit", "nofile=1000:2000"}, "ulimit -Sn; ulimit -Hn", "1000\n2000"},
		{[]string{"--shm-size", "8m"}, "df -k /dev/shm | awk 'NR == 2 { print $2 }'", "8192"},
		{[]string{"--sysctl", "net.core.somaxconn=1234", "--sysctl", "kernel.shmmni=99"}, "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmni", "1234\n99"},
		{[]string{"--read-only", "--tmpfs", "/tmp"}, "touch /tmp/x; touch /x 2>/dev/null || echo no; mount -o remount,rw / 2>/dev/null; touch /x 2>/dev/null || echo no", "no\nno"},
		{[]string{"--init"}, "cat /proc/1/comm", "docker-init"},
		{[]string{"--cpuset-cpus", "0"}, "nproc", "1"},
		{[]string{"--dns", "192.0.2.1", "--dns-search", "example.org"}, "cat /etc/resolv.conf | grep -v '^#' | sort | tr '\\n' ' '", "nameserver 192.0.2.1 search example.org"},
	} {
		d.prints(t, test.want, test.flags, test.script)
	}
}

// capNetRaw and others as bits of /proc/self/status (capabilities(7)).
const (
	capNetRaw   = 1 << 13
	capSysAdmin = 1 << 21
)

func securityOptions(t *testing.T, d *daemon) {
	const effective = "sed -n 's/CapEff:[[:space:]]*//p' /proc/self/status"
	bits := func(flags ...string) (caps uint64) {
		t.Helper()
		r := d.run(t, flags, effective)
		if _, err := fmt.Sscanf(strings.TrimSpace(r.Stdout), "%x", &caps); err != nil || r.Err() != nil {
			t.Errorf("%q: %v %v", flags, err, r.Err())
		}
		return caps
	}
	if bits("--cap-drop", "ALL")&capSysAdmin == 0 {
		t.Error("the default is caps = \"full\", but something is missing")
	}
	t.Run("caps honor", func(t *testing.T) {
		rig.Configure(t, "caps = \"honor\"\n")
		if got := bits("--cap-drop", "ALL"); got != 0 {
			t.Errorf("all capabilities dropped, but there is %x", got)
		}
		if got := bits("--cap-drop", "NET_RAW"); got == 0 || got&capNetRaw != 0 {
			t.Errorf("NET_RAW dropped, and there is %x", got)
		}
		if got := bits("--cap-drop", "ALL", "--cap-add", "NET_RAW"); got != capNetRaw {
			t.Errorf("NET_RAW alone wanted, and there is %x", got)
		}
		if got := bits("--cap-add", "SYS_ADMIN"); got&capSysAdmin == 0 {
			t.Errorf("SYS_ADMIN added, and there is %x", got)
		}
	})
	const status = "sed -n 's/^\\(NoNewPrivs\\|Seccomp\\):[[:space:]]*//p' /proc/self/status | tr '\\n' ' '"
	d.prints(t, "0 2", nil, status)
	d.prints(t, "1 2", []string{"--security-opt", "no-new-privileges"}, status)
	d.prints(t, "1000", []string{"--security-opt", "no-new-privileges", "--user", "1000"}, "/usr/local/bin/suid-id -u")
	d.prints(t, "0", []string{"--security-opt", "apparmor=unconfined", "--security-opt", "label=disable"}, "id -u")
	// Without a profile of the caller's the shim's own counts.
	d.prints(t, "0 2", []string{"--security-opt", "seccomp=unconfined"}, status)
	profile := t.TempDir() + "/profile.json"
	if err := os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	d.prints(t, "Function not implemented", []string{"--security-opt", "seccomp=" + profile}, "mkdir /x 2>&1 | sed 's/.*: //'")
}

// privileged means privileged among the container's own things.
func privileged(t *testing.T, d *daemon) {
	const sysctl = "/proc/sys/kernel/panic"
	before, err := os.ReadFile(sysctl)
	if err != nil {
		t.Fatal(err)
	}
	c := d.start(t, []string{"--privileged"})
	d.hostID(t, c)
	d.expect(t, "mounted", c, "mkdir /m && mount -t tmpfs t /m && echo mounted")
	d.expect(t, "added", c, "ip link add d0 type bridge && echo added")
	d.expect(t, "no no no no", c, `echo $(mknod /b b 8 0 2>/dev/null || echo no) $(echo s 2>/dev/null >/proc/sysrq-trigger || echo no) \
		$(echo 1 2>/dev/null >/proc/sys/vm/drop_caches || echo no) $(find /dev -type b | grep -q . || echo no)`)
	d.expect(t, "no no", c, "echo $(dd if=/dev/mem bs=1 count=1 2>/dev/null || echo no) $(ls /dev/kvm /dev/loop-control 2>/dev/null || echo no)")
	d.in(t, c, "echo 77 >"+sysctl+" || true")
	if after, err := os.ReadFile(sysctl); err != nil || string(after) != string(before) {
		t.Errorf("%s is %q, was %q (%v)", sysctl, after, before, err)
	}
	// Cgroups: its own as the root of all.
	d.expect(t, "0", c, "cut -d: -f3 /proc/self/cgroup | grep -vc '^/\\(init[.]scope\\)\\?$' || true")
	d.expect(t, "no", c, "mkdir /cg && mount -t cgroup2 c /cg 2>/dev/null; find /cg /sys/fs/cgroup -maxdepth 2 -name docker | grep -q . || echo no")
	for _, other := range []string{"/proc/1/root/proc/1/cmdline"} {
		d.expect(t, "sleep", c, "tr '\\0' ' ' <"+other+" | cut -d' ' -f1")
	}
}

// devices belong to the container's root, with the modes they have.
func devices(t *testing.T, d *daemon) {
	d.prints(t, "0:0 1:5 readable", []string{"--device", "/dev/zero:/dev/x/zero:r"},
		"echo $(stat -c '%u:%g %t:%T' /dev/x/zero) $(head -c1 /dev/x/zero >/dev/null && echo readable)")
	d.prints(t, "0:0 opened", []string{"--device", "/dev/fuse"}, "exec 3<>/dev/fuse; echo $(stat -c %u:%g /dev/fuse) opened")
	d.refused(t, d.run(t, []string{"--device", "/dev/nosuch"}, "true"), "/dev/nosuch")
}

// gpu is a device with hooks (CDI). Its description has no modes, and dockerd adds none.
func gpu(t *testing.T, d *daemon) {
	script, want := rig.GPU(t, "666")
	d.prints(t, want, []string{"--device", rig.GPUName}, script)
}
