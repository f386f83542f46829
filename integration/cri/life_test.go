// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/rig"
)

// kinds are a pod whose ids isolate gives out, and one for which the caller has
// mapped.
var kinds = []struct {
	name   string
	config func() message
}{
	{"own", own},
	{"adopted", func() message { return mapped(300000) }},
}

// TestPods leads pods through their life, with each OCI runtime, and ends with
// nothing left behind.
func TestPods(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE)
			n := podNode(t, rig.Config{Runc: runtime, LogLevel: "info"})
			rig.Configure(t, twoRanges)
			for range 2 { // makes what is made once: the bridge, files of the ranges
				n.pod(t, own())
			}
			n.removeAll(t)
			before := rig.MustSnapshot(t)
			for _, kind := range kinds {
				t.Run(kind.name, func(t *testing.T) {
					for _, test := range []struct {
						name string
						run  func(*testing.T, *node, message)
					}{
						{"ids", sharesIDs},
						{"volumes", sharesVolumes},
						{"streams", streams},
						{"containers", restartsContainers},
						{"resources", seesLimits},
						{"network", usesNetwork},
						{"restart", outlivesContainerd},
						{"kill", diesWithShim},
					} {
						t.Run(test.name, func(t *testing.T) {
							test.run(t, n, kind.config())
						})
						rig.MustMatch(t, before)
					}
				})
			}
		})
	}
}

// sharesIDs proves that all of a pod have one range of ids, each in a user
// namespace of its own, and that another pod has others.
func sharesIDs(t *testing.T, n *node, config message) {
	p := n.pod(t, config)
	first, userns := ids(t, p.info(t).Info.PID)
	seen := []string{userns}
	for range 2 {
		c := p.container(t, security(config, message{}))
		f, userns := ids(t, c.info(t).Info.PID)
		if f != first || slices.Contains(seen, userns) {
			t.Errorf("container has ids from %d on in %s, its pod from %d on in %s", f, userns, first, seen)
		}
		seen = append(seen, userns)
		// The stored spec of exec'd processes knows nothing of the mapping.
		got := strings.Fields(c.sh(t, "readlink /proc/self/ns/user; cat /proc/self/uid_map"))
		if len(got) != 4 || got[0] != userns || got[2] != strconv.Itoa(first) {
			t.Errorf("an exec'd process has %q", got)
		}
	}
	if shims := strings.Count(rig.Exec(t.Context(), "ps", "-eo", "args").Must(t), "containerd-shim-isolate-v1 -namespace k8s.io -id "); shims != 1 {
		t.Errorf("%d shims for one pod", shims)
	}
	other := own()
	if mapping(config) != nil {
		other = mapped(400000)
	}
	if f, u := ids(t, n.pod(t, other).info(t).Info.PID); f == first || u == userns {
		t.Errorf("another pod has ids from %d on in %s as well", f, u)
	}
}

// sharesVolumes proves that ids on disk are those in the container, that volumes
// and /dev/shm are shared within a pod, and that read-only is for good.
func sharesVolumes(t *testing.T, n *node, config message) {
	shared, readOnly := volume(t), volume(t)
	if err := os.WriteFile(filepath.Join(readOnly, "file"), []byte("of the host\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	// A volume with a group, as the kubelet makes for fsGroup.
	group := volume(t)
	if err := os.Chown(group, 0, 2000); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(group, 0o770|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	mounts := []message{
		mount(config, shared, "/shared"), merge(mount(config, readOnly, "/ro"), message{"readonly": true}), mount(config, group, "/group"),
	}
	p := n.pod(t, config)
	one := p.container(t, merge(security(config, message{}), message{"mounts": mounts}))
	two := p.container(t, merge(security(config, message{
		"run_as_user": message{"value": 1000}, "run_as_group": message{"value": 1000}, "supplemental_groups": []int{2000},
	}), message{"mounts": mounts}))

	one.sh(t, "echo hello > /shared/root && echo hello > /dev/shm/note && chmod 777 /shared")
	if got := two.sh(t, "cat /shared/root /dev/shm/note; echo mine > /shared/user; echo ours > /group/file; id -u; id -G"); got != "hello\nhello\n1000\n1000 2000 50000" {
		t.Errorf("the other container printed %q", got)
	}
	for file, want := range map[string]string{shared + "/root": "0:0", shared + "/user": "1000:1000", group + "/file": "1000:2000"} {
		if got := owner(t, file); got != want {
			t.Errorf("%s belongs to %s on disk, want %s", file, got, want)
		}
	}
	if got := one.sh(t, "stat -c %u:%g /shared/user /group/file /ro/file; cat /ro/file"); got != "1000:1000\n1000:2000\n0:0\nof the host" {
		t.Errorf("root sees %q", got)
	}
	for _, script := range []string{"echo x > /ro/file", "mount -o remount,rw,bind /ro && echo x > /ro/file"} {
		if r := one.try(script); r.Code == 0 {
			t.Errorf("in container: %s: done", script)
		}
	}
	if text, err := os.ReadFile(readOnly + "/file"); err != nil || string(text) != "of the host\n" {
		t.Errorf("read-only volume has %q, %v", text, err)
	}
}

// volume is a directory on a disk that containers may reach.
func volume(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(rig.Dir(), "volume")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func owner(t *testing.T, file string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

// streams proves that exec, with and without a terminal, attach, logs and stats
// work.
func streams(t *testing.T, n *node, config message) {
	p := n.pod(t, config)
	c := p.container(t, merge(security(config, message{}), message{
		"command": []string{"sh", "-c", "echo started; while read line; do echo got $line; done; echo closed"}, "stdin": true,
	}))
	refused(t, n.try("exec", "--sync", c.id, "sh", "-c", "echo error >&2; exit 7"), "exited with 7: error")
	if r := n.try("exec", c.id, "sh", "-c", "echo streamed"); r.Stdout != "streamed\n" {
		t.Errorf("exec over a stream: %q, %v", r.Stdout, r.Err())
	}
	// script(1) has a terminal, which crictl wants.
	crictl := n.crictl + " --runtime-endpoint unix://" + n.Address
	r := rig.Exec(t.Context(), "script", "-qec", crictl+" exec -it "+c.id+" sh -c 'tty; test -t 0 && stat -c %u $(tty)'", "/dev/null")
	if !strings.Contains(r.Stdout, "/dev/pts/") || !strings.Contains(r.Stdout, "0\r\n") {
		t.Errorf("exec with a terminal: %q, %v", r.Stdout, r.Err())
	}
	r = rig.Exec(t.Context(), "sh", "-c", "(sleep 1; echo line) | timeout 20 "+crictl+" attach -i "+c.id)
	logs := func() string { return n.try("logs", c.id).Stdout }
	rig.Eventually(t, "attach", func() bool { return strings.Contains(logs(), "got line") })
	if got := logs(); !strings.Contains(got, "started\n") {
		t.Errorf("logs: %q; attach: %v", got, r.Err())
	}
	if text, err := os.ReadFile(c.logs); err != nil || !strings.Contains(string(text), "stdout F started") {
		t.Errorf("log file: %q, %v", text, err)
	}
	var stats struct {
		Stats []struct {
			Memory struct {
				WorkingSetBytes struct {
					Value string `json:"value"`
				} `json:"workingSetBytes"`
			} `json:"memory"`
			WritableLayer struct {
				UsedBytes struct {
					Value string `json:"value"`
				} `json:"usedBytes"`
			} `json:"writableLayer"`
		} `json:"stats"`
	}
	text := n.try("stats", "-o", "json", "--id", c.id).Must(t)
	if err := json.Unmarshal([]byte(text), &stats); err != nil || len(stats.Stats) != 1 || len(stats.Stats[0].Memory.WorkingSetBytes.Value) < 5 {
		t.Errorf("stats: %v, %s", err, text)
	}
}

// restartsContainers proves that containers come and go in a pod, as the kubelet
// has it: one after the other at first, then stopped and made anew.
func restartsContainers(t *testing.T, n *node, config message) {
	shared := volume(t)
	mounts := message{"mounts": []message{mount(config, shared, "/shared")}}
	p := n.pod(t, config)
	first, _ := ids(t, p.info(t).Info.PID)
	for i := range 3 {
		c := p.container(t, merge(merge(security(config, message{}), message{"command": []string{"sh", "-c", fmt.Sprintf("echo %d >> /shared/order; exit %d", i, i)}}), mounts))
		rig.Eventually(t, "end", func() bool { return c.info(t).Status.State == "CONTAINER_EXITED" })
		if code := c.info(t).Status.ExitCode; code != i {
			t.Errorf("container %d exited with %d", i, code)
		}
		n.try("rm", c.id).Must(t)
	}
	if text, err := os.ReadFile(filepath.Join(shared, "order")); err != nil || string(text) != "0\n1\n2\n" || owner(t, filepath.Join(shared, "order")) != "0:0" {
		t.Errorf("containers wrote %q, %v", text, err)
	}
	for i := range 2 {
		c := p.container(t, merge(security(config, message{}), message{
			"metadata": message{"name": "again", "attempt": i},
			"command":  []string{"sh", "-c", "trap 'exit 3' TERM; echo >/trapped; while :; do sleep 0.1; done"},
		}))
		rig.Eventually(t, "trap", func() bool { return c.try("test -e /trapped").Code == 0 }) // a first process ignores what it does not catch
		if f, _ := ids(t, c.info(t).Info.PID); f != first {
			t.Errorf("attempt %d has ids from %d on", i, f)
		}
		n.try("stop", "--timeout", "20", c.id).Must(t)
		if got := c.info(t).Status; got.State != "CONTAINER_EXITED" || got.ExitCode != 3 {
			t.Errorf("stopped container is %+v", got)
		}
	}
	n.try("stopp", p.id).Must(t)
	if got := p.info(t).Status.State; got != "SANDBOX_NOTREADY" {
		t.Errorf("stopped pod is %s", got)
	}
}

// seesLimits proves that a container sees the limits that the pod spec names.
func seesLimits(t *testing.T, n *node, config message) {
	p := n.pod(t, config)
	c := p.container(t, merge(security(config, message{}), message{"linux": message{"resources": message{
		"memory_limit_in_bytes": 128 << 20, "cpu_quota": 100000, "cpu_period": 100000,
	}}}))
	if got := c.sh(t, "grep MemTotal /proc/meminfo | tr -s ' '; grep -c ^processor /proc/cpuinfo"); got != "MemTotal: 131072 kB\n1" {
		t.Errorf("container sees %q", got)
	}
	n.try("update", "--memory", strconv.Itoa(64<<20), c.id).Must(t)
	if got := c.sh(t, "grep MemTotal /proc/meminfo | tr -s ' '"); got != "MemTotal: 65536 kB" {
		t.Errorf("after an update the container sees %q", got)
	}
	oom := p.container(t, merge(security(config, message{}), message{
		"command": []string{"sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M"},
		"linux":   message{"resources": message{"memory_limit_in_bytes": 16 << 20, "memory_swap_limit_in_bytes": 16 << 20}},
	}))
	rig.Eventually(t, "out of memory", func() bool { return oom.info(t).Status.State == "CONTAINER_EXITED" })
	if got := oom.info(t).Status; got.Reason != "OOMKilled" || got.ExitCode != 137 {
		t.Errorf("container that ran out of memory is %+v", got)
	}
}

// usesNetwork proves that a pod's programs can be reached by its address and by a
// forwarded port; also on ports below 1024, for which CRI opens the pod's network
// namespace. Who may administer it depends on who owns it.
func usesNetwork(t *testing.T, n *node, config message) {
	mark := n.Mark(t)
	p := n.pod(t, merge(message{"port_mappings": []message{{"container_port": 80, "host_port": 12080}}}, config))
	c := p.container(t, merge(security(config, message{}), message{"command": []string{"sh", "-c", "while :; do echo served | nc -l -p 80; done"}}))
	ip := p.info(t).Status.Network.IP
	fetch := func(address string) bool {
		conn, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			return false
		}
		defer conn.Close()
		buffer := make([]byte, 16)
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return false
		}
		got, err := conn.Read(buffer)
		return err == nil && string(buffer[:got]) == "served\n"
	}
	rig.Eventually(t, "answer of the pod", func() bool { return fetch(net.JoinHostPort(ip, "80")) })
	rig.Eventually(t, "answer of the host port", func() bool { return fetch("10.88.70.1:12080") })

	ctx, cancel := context.WithCancel(t.Context())
	forward := exec.CommandContext(ctx, n.crictl, "--runtime-endpoint", "unix://"+n.Address, "port-forward", p.id, "12081:80")
	var said bytes.Buffer
	forward.Stdout, forward.Stderr = &said, &said
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "answer of the forwarded port", func() bool { return fetch("127.0.0.1:12081") })
	cancel()
	_ = forward.Wait() // it was killed

	adopted := mapping(config) != nil
	const administration = "ip link add d0 type bridge"
	if c.try(administration).Code == 0 {
		t.Error("administers the network of its pod without having asked for that")
	}
	admin := p.container(t, security(config, message{"capabilities": message{"add_capabilities": []string{"NET_ADMIN"}}}))
	if administers := admin.try(administration).Code == 0; administers != adopted {
		t.Errorf("administers its network: %v", administers)
	}
	warnings := n.Warnings(t, mark)
	foreign := 0
	for _, w := range warnings {
		if strings.Contains(w, "belongs to another user namespace: it runs without network administration") {
			foreign++
		}
	}
	// One for the sandbox; its containers share the reason.
	if want := map[bool]int{true: 0, false: 1}[adopted]; foreign != want || len(warnings) != want {
		t.Errorf("%d warnings of a foreign network, want %d: %q", foreign, want, warnings)
	}
}

// outlivesContainerd proves that pods run on while containerd restarts, or dies,
// and are its again.
func outlivesContainerd(t *testing.T, n *node, config message) {
	p := n.pod(t, config)
	c := p.container(t, security(config, message{}))
	first, _ := ids(t, p.info(t).Info.PID)
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.sh(t, "echo here"); got != "here" {
		t.Errorf("after a restart the container printed %q", got)
	}
	later := p.container(t, security(config, message{}))
	if f, _ := ids(t, later.info(t).Info.PID); f != first {
		t.Errorf("a container made after the restart has ids from %d on", f)
	}
}

// diesWithShim proves that a shim that is killed takes the pod with it, that
// clients can remove what containerd still knows of it, and that others get its
// ids.
func diesWithShim(t *testing.T, n *node, config message) {
	p := n.pod(t, config)
	c := p.container(t, security(config, message{}))
	pids := []int{p.info(t).Info.PID, c.info(t).Info.PID}
	text := rig.Exec(t.Context(), "pgrep", "-f", "containerd-shim-isolate-v1 .*-id "+p.id).Must(t)
	shim, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatalf("shims of the pod: %q", text)
	}
	if err := unix.Kill(shim, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "end of the pod", func() bool {
		for _, pid := range pids {
			if unix.Kill(pid, 0) == nil {
				return false
			}
		}
		return true
	})
	rig.Eventually(t, "report of the end", func() bool {
		return p.info(t).Status.State == "SANDBOX_NOTREADY" && c.info(t).Status.State == "CONTAINER_EXITED"
	})
	p.remove(t)
	// Its ids are free: the host has two ranges.
	for range 2 {
		n.pod(t, own())
	}
}
