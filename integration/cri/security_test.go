// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// TestSecurityContext proves what becomes of each wish in a pod's security
// context, in a pod that isolate maps and in one that the kubelet has mapped.
func TestSecurityContext(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE)
			n := podNode(t, rig.Config{Runc: runtime})
			profile := filepath.Join(t.TempDir(), "profile.json")
			if err := os.WriteFile(profile, []byte(noChmod), 0o644); err != nil {
				t.Fatal(err)
			}
			onGPU, printsOnGPU := rig.GPU(t, "660")
			for _, kind := range kinds {
				t.Run(kind.name, func(t *testing.T) {
					config := kind.config()
					p := n.pod(t, config)
					for _, c := range []struct {
						name    string
						context message
						more    message
						script  string
						want    string
						fails   string // a second script
					}{
						{
							name: "user and groups", context: message{"run_as_user": message{"value": 1000}, "run_as_group": message{"value": 3000}, "supplemental_groups": []int{4000}},
							script: "id -u; id -G; grep CapEff /proc/self/status | cut -f2", want: "1000\n3000 4000 50000\n0000000000000000", fails: "touch /file",
						},
						{name: "user by name", context: message{"run_as_username": "www-data"}, script: "id -u; id -g", want: "33\n33"},
						{
							// All of it is within the container's own namespaces.
							name: "privileged", context: message{"privileged": true},
							script: "ls /dev | grep -c '^[hsv]d[a-z]\\|^nvme\\|^mem$\\|^kvm$'; mount -t tmpfs none /tmp && echo mounted", want: "0\nmounted",
							fails: "mknod /node b 8 0 && cat /node || echo x > /proc/sys/kernel/core_pattern || echo x > /proc/sysrq-trigger || echo +x > /sys/kernel/uevent_helper",
						},
						{name: "read-only root", context: message{"readonly_rootfs": true}, script: "touch /dev/shm/file; echo done", want: "done", fails: "touch /file"},
						{name: "read-only root, remounted", context: message{"readonly_rootfs": true}, script: "true", fails: "mount -o remount,rw / && touch /file"},
						{name: "default seccomp profile", context: message{"seccomp": message{"profile_type": 0}}, script: "grep Seccomp: /proc/self/status | cut -f2", want: "2"},
						{
							name: "seccomp profile of the node", context: message{"seccomp": message{"profile_type": 2, "localhost_ref": profile}},
							script: "grep Seccomp: /proc/self/status | cut -f2; mount -t tmpfs none /tmp && echo mounted", want: "2\nmounted", fails: "chmod 400 /",
						},
						{name: "no new privileges", context: message{"no_new_privs": true}, script: "grep NoNewPrivs /proc/self/status | cut -f2", want: "1"},
						{name: "new privileges", script: "grep NoNewPrivs /proc/self/status | cut -f2", want: "0"},
						{
							name: "masked and read-only paths", context: message{"masked_paths": []string{"/proc/version", "/etc/passwd"}, "readonly_paths": []string{"/tmp"}},
							script: "wc -c < /etc/passwd; wc -c < /proc/version", want: "0\n0", fails: "touch /tmp/file",
						},
						{name: "unmasked /proc", context: message{"masked_paths": []string{}, "readonly_paths": []string{}}, script: "test -d /proc/acpi || test -e /proc/timer_list && echo there", want: "there", fails: "cat /proc/kcore || echo x > /proc/sysrq-trigger"},
						{
							name: "device", more: message{"devices": []message{{"host_path": "/dev/full", "container_path": "/dev/mine", "permissions": "rwm"}}},
							script: "stat -c '%F %t %T' /dev/mine; head -c1 /dev/mine | od -An -tx1", want: "character special file 1 7\n 00", fails: "echo x > /dev/mine",
						},
						{name: "GPU", more: message{"CDI_devices": []message{{"name": rig.GPUName}}}, script: onGPU, want: printsOnGPU},
					} {
						t.Run(c.name, func(t *testing.T) {
							p, config := p, config
							if c.context["privileged"] == true { // CRI wants it of the pod as well
								config = kind.config()
								if kind.name == "adopted" { // as the kubelet: no two pods have the same ids
									config = mapped(400000)
								}
								p = n.pod(t, merge(config, message{"linux": message{"security_context": c.context}}))
							}
							ctr := p.container(t, merge(security(config, c.context), c.more))
							if got := ctr.sh(t, c.script); got != c.want {
								t.Errorf("printed %q, want %q", got, c.want)
							}
							if c.fails == "" {
								return
							}
							if r := ctr.try(c.fails); r.Code == 0 {
								t.Errorf("in container: %s: done: %s", c.fails, r.Stdout)
							}
						})
					}
				})
			}
		})
	}
}

const noChmod = `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}]}`

// TestHonour proves that capabilities and seccomp profiles are those that the pod
// asks for, if the administrator wants it so.
func TestHonour(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	n := podNode(t, rig.Config{})
	rig.Configure(t, "caps = \"honor\"\nseccomp = \"keep\"\n")
	config := own()
	p := n.pod(t, config)
	const status = "grep 'CapEff\\|Seccomp:' /proc/self/status | cut -f2"
	for _, c := range []struct {
		name    string
		context message
		want    string
	}{
		{"as containerd has it", message{"seccomp": message{"profile_type": 0}}, "00000000a80425fb\n2"},
		{"none, unconfined", message{"capabilities": message{"drop_capabilities": []string{"ALL"}}, "seccomp": message{"profile_type": 1}}, "0000000000000000\n0"},
		{"one more", message{"capabilities": message{"add_capabilities": []string{"SYS_ADMIN"}}}, "00000000a82425fb\n0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := p.container(t, security(config, c.context)).sh(t, status); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestSysctls proves that the sysctls of a pod are set: those of its network
// namespace by the shim, if that is not the pod's own to administer.
func TestSysctls(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE)
			n := podNode(t, rig.Config{Runc: runtime})
			host := sysctl(t, "net/ipv4/ip_local_port_range")
			for _, kind := range kinds {
				t.Run(kind.name, func(t *testing.T) {
					mark := n.Mark(t)
					config := merge(kind.config(), message{"linux": message{"sysctls": message{
						"net.ipv4.ip_local_port_range": "1024 2048", "net.ipv4.conf.lo.forwarding": "1", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "77",
					}}})
					c := n.pod(t, config).container(t, security(config, message{}))
					got := c.sh(t, "cd /proc/sys; cat net/ipv4/ip_local_port_range net/ipv4/conf/lo/forwarding kernel/shm_rmid_forced fs/mqueue/msg_max net/ipv4/ip_unprivileged_port_start")
					if got = strings.Join(strings.Fields(got), " "); got != "1024 2048 1 1 77 0" {
						t.Errorf("sysctls are %q", got)
					}
					for _, w := range n.Warnings(t, mark) {
						if strings.Contains(w, "sysctl") {
							t.Error(w)
						}
					}
				})
			}
			if got := sysctl(t, "net/ipv4/ip_local_port_range"); got != host {
				t.Errorf("the host's sysctl was %q and is %q", host, got)
			}
		})
	}
}

func sysctl(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc/sys", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
