// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/attacker"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// TestContainersOfPodAttackEachOther has a container of a pod attack another one,
// under runc's shim with hostUsers: false and under isolate: nothing that fails
// there works here, unless the administrator wants it so.
func TestContainersOfPodAttackEachOther(t *testing.T) {
	capabilities := func(add, drop []string) message {
		return message{"capabilities": message{"add_capabilities": add, "drop_capabilities": drop}}
	}
	plain := message{}
	user := message{"run_as_user": message{"value": 1000}}
	all := []string{"ALL"}
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE, rig.Kernel("6.5")) // SO_PEERPIDFD
			n := podNode(t, rig.Config{Runc: runtime})
			for _, test := range []struct {
				name             string
				pod              func() message
				victim, attacker message
				isolate          string
				// upstream tells what works under runc's shim, and works what works
				// under isolate; "" for nothing, "signal" for no more than that.
				upstream, works string
			}{
				{name: "ordinary", pod: adopted, victim: plain, attacker: plain, upstream: "getfd ioctl"},
				{name: "ordinary, mapped by isolate", pod: own, victim: plain, attacker: plain, upstream: "not tried"},
				{name: "user", pod: adopted, victim: user, attacker: plain},
				{name: "administrator attacks", pod: adopted, victim: plain, attacker: capabilities([]string{"SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"}, nil), upstream: "setns getfd ioctl"},
				{name: "administrator is attacked", pod: adopted, victim: capabilities([]string{"SYS_ADMIN", "NET_ADMIN"}, nil), attacker: plain},
				{name: "administrators of the network", pod: adopted, victim: capabilities([]string{"NET_ADMIN"}, nil), attacker: capabilities([]string{"NET_ADMIN"}, nil), upstream: "getfd ioctl", works: "getfd ioctl"},
				{name: "shared by the administrator", pod: adopted, victim: plain, attacker: plain, isolate: `pods = "shared"`, upstream: "not tried", works: "setns getfd ioctl"},
				{name: "shared processes", pod: sharedProcesses, victim: plain, attacker: plain, upstream: "signal getfd ioctl proc vm ptrace", works: "signal getfd ioctl proc vm ptrace"},
				{name: "shared processes, one without capabilities", pod: sharedProcesses, victim: plain, attacker: capabilities(nil, all), upstream: "signal", works: "signal"},
			} {
				t.Run(test.name, func(t *testing.T) {
					if test.upstream != "not tried" {
						judge(t, "runc", n.attack(t, "runc", test.pod(), test.victim, test.attacker), test.upstream)
					}
					if test.isolate != "" {
						rig.Configure(t, test.isolate)
					}
					judge(t, "isolate", n.attack(t, handler, test.pod(), test.victim, test.attacker), test.works)
				})
			}
		})
	}
}

func adopted() message { return mapped(300000) }

// sharedProcesses is a pod with shareProcessNamespace: true.
func sharedProcesses() message { return merge(adopted(), namespaces(message{"pid": 0})) }

// attack runs a pod with a victim and an attacker, and returns the results.
func (n *node) attack(t *testing.T, handler string, pod, victim, by message) map[string]string {
	t.Helper()
	program := shareProgram(t)
	p, r := n.tryPod(t, handler, pod)
	r.Must(t)
	defer p.remove(t)
	mounts := message{"mounts": []message{mount(pod, filepath.Dir(program), "/attacker")}}
	v := p.container(t, merge(merge(security(pod, victim), mounts), message{"command": []string{"/attacker/inside", "meet", "@meet"}}))
	rig.Eventually(t, "meeting", func() bool { return strings.Contains(n.try("logs", v.id).Stdout, "ready") })
	a := p.container(t, merge(security(pod, by), mounts))
	out := n.try("exec", "--sync", a.id, "/attacker/inside", "peer", "@meet").Must(t)
	results := map[string]string{}
	for line := range strings.Lines(strings.TrimSpace(out)) {
		var l struct{ Name, Result string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		results[strings.TrimPrefix(l.Name, "peer/")] = l.Result
	}
	return results
}

// judge wants those attempts to have worked that are named, and no others. An
// attempt of several kinds is named once.
func judge(t *testing.T, where string, results map[string]string, works string) {
	t.Helper()
	if len(results) < 8 {
		t.Fatalf("%s: only %v was tried", where, results)
	}
	want := strings.Fields(works)
	worked := map[string]bool{}
	for name, result := range results {
		name, _, _ := strings.Cut(name, ":")
		if result == "allowed" {
			worked[name] = true
		}
	}
	for name := range worked {
		if !slices.Contains(want, name) {
			t.Errorf("%s: %s works: %v", where, name, results)
		}
	}
	for _, name := range want {
		if !worked[name] {
			t.Errorf("%s: %s does not work: %v", where, name, results)
		}
	}
}

// shareProgram puts the attacker where pods can mount it.
func shareProgram(t *testing.T) string {
	t.Helper()
	from, err := attacker.Program(t.Context(), attacker.Inside)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(volume(t), "inside")
	if err := testprogram.Write(path, string(program)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDebugContainer proves that an ephemeral container with a target (kubectl
// debug --target) sees and traces its processes, wherever that lives.
func TestDebugContainer(t *testing.T) {
	eachPod(t, ociRuntimes, func(t *testing.T, p *pod, config message) {
		target := p.container(t, merge(security(config, message{}), message{"command": []string{"sh", "-c", "echo mine > /file; exec sleep 100000"}}))
		options := merge(merge(message{}, namespacesOf(config)), message{"pid": 3, "target_id": target.id})
		debug := p.container(t, message{"linux": message{"security_context": message{"namespace_options": options}}})
		if got := debug.sh(t, "tr '\\0' ' ' < /proc/1/cmdline; cat /proc/1/root/file"); got != "sleep 100000 mine" {
			t.Errorf("the debugging container sees %q", got)
		}
	})
}

// TestSharedObjects proves that what containers of a pod share, and do not own,
// can be seen and used by each.
func TestSharedObjects(t *testing.T) {
	eachPod(t, ociRuntimes, func(t *testing.T, p *pod, config message) {
		mounts := message{"mounts": []message{mount(config, filepath.Dir(shareProgram(t)), "/attacker")}}
		one, two := p.container(t, merge(security(config, message{}), mounts)), p.container(t, security(config, message{}))
		one.sh(t, "touch /dev/mqueue/queue && test -f /dev/mqueue/queue")
		if got := two.sh(t, "ls /dev/mqueue; ls /sys/class/net; cat /sys/class/net/eth0/address"); !strings.HasPrefix(got, "queue\neth0\nlo\n") {
			t.Errorf("the other container sees %q", got)
		}
		if got, want := one.sh(t, "cat /sys/class/net/eth0/address"), one.sh(t, "ip link show eth0 | sed -n 's/.*ether \\([^ ]*\\).*/\\1/p'"); got != want {
			t.Errorf("/sys has the address %q, the kernel %q", got, want)
		}
		if r := one.try("mount -o remount,rw /sys && echo 9000 > /sys/class/net/eth0/mtu"); r.Code == 0 {
			t.Error("a container administers the network of its pod by /sys")
		}
		if got := one.sh(t, "/attacker/inside ping 127.0.0.1"); !strings.Contains(got, "allowed") {
			t.Errorf("ping: %s, groups %s", got, one.sh(t, "cat /proc/sys/net/ipv4/ping_group_range; id"))
		}
	})
}
