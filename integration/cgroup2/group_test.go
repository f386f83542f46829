// SPDX-License-Identifier: Apache-2.0

package cgroup2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

const (
	memoryLimit = 96 << 20
	cpuMax      = "50000 100000"
	// leaf is the group of the container's first process.
	leaf = "init.scope"
)

// TestGroups leads a container of each OCI runtime through everything that its
// group is for, and counts what is left.
func TestGroups(t *testing.T) {
	for _, runtime := range []peer.Name{peer.Runc15, peer.Crun121} {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.CgroupV2, rig.Root, rig.FUSE, rig.Command("ldd"), rig.Command("free"))
			server := map[peer.Name]peer.Name{peer.Runc15: peer.Lxcfs7, peer.Crun121: peer.Lxcfs6}[runtime]
			lxcfs := rig.LxcfsFor(t, server, "")
			n := startNode(t, runtime)
			volume := t.TempDir()
			makeNodes(t, filepath.Join(volume, "nodes"))
			copyFree(t, volume)

			// The first one leaves what is known of the runtime, and empty directories.
			first := n.start(t, "first", nil, "sleep", "1000")
			first.exec(t, "echo end reached")
			first.remove(t)
			before := rig.MustSnapshot(t)
			c := n.start(t, "c", []string{
				"--memory-limit", fmt.Sprint(memoryLimit), "--cpus", "0.5",
				"--mount", "type=bind,src=" + volume + ",dst=/volume,options=rbind:rw",
			}, "sleep", "1000")
			limits := settings(t, c.dir)
			t.Run("delegation", func(t *testing.T) { delegation(t, c) })
			t.Run("writes", func(t *testing.T) { writes(t, c) })
			t.Run("inner limits", func(t *testing.T) { innerLimits(t, c) })
			t.Run("outer limits", func(t *testing.T) { outerLimits(t, c) })
			t.Run("quota", func(t *testing.T) { sharedQuota(t, c) })
			t.Run("pressure", func(t *testing.T) { pressure(t, c, server == peer.Lxcfs7) })
			t.Run("devices", func(t *testing.T) {
				devices(t, c)
				update(t, c) // replaces programs that are attached to the group
				devices(t, c)
			})
			t.Run("pause", func(t *testing.T) { pause(t, c) })
			t.Run("metrics", func(t *testing.T) { metrics(t, c) })
			if n.systemd {
				t.Run("unit", func(t *testing.T) { unit(t, c) })
			}
			for name, was := range limits {
				if now := read(t, c.dir, name); now != was {
					t.Errorf("%s was %q and is %q", name, was, now)
				}
			}
			c.remove(t)
			t.Run("oom", func(t *testing.T) { outOfMemory(t, n) })
			if _, err := os.Stat(c.dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is still there: %v", c.dir, err)
			}
			rig.MustMatch(t, before)
			for _, line := range n.Warnings(t, 0) {
				if rig.Slow() && strings.Contains(line, "an inner container sees the host's resources") && strings.Contains(line, context.DeadlineExceeded.Error()) {
					continue // an emulated machine needs more than the half second that the call may wait
				}
				t.Errorf("the shim warns: %s", line)
			}
			if server != peer.Lxcfs7 {
				t.Run("upgrade", func(t *testing.T) { upgrade(t, n, lxcfs) })
			}
		})
	}
}

// settings returns the values of the files in a group that limit it.
func settings(t *testing.T, dir string) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, pattern := range []string{"*.max", "*.high", "*.low", "*.min", "*.weight", "cpuset.cpus", "cpuset.mems", "cgroup.max.*", "cgroup.freeze", "cgroup.type"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			values[filepath.Base(file)] = read(t, dir, filepath.Base(file))
		}
	}
	if len(values) < 15 {
		t.Errorf("only %d limits: not all controllers are there", len(values))
	}
	equal(t, "memory.max", values["memory.max"], memoryLimit)
	equal(t, "cpu.max", values["cpu.max"], cpuMax)
	return values
}

// delegated lists the files of a group that are to belong to the container's
// root.
func delegated(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	for name := range strings.FieldsSeq(read(t, "/sys/kernel/cgroup", "delegate")) {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			names = append(names, name)
		}
	}
	if len(names) < 3 {
		t.Errorf("the kernel names only %q", names)
	}
	slices.Sort(names)
	return names
}

// delegation compares the owners of all files.
func delegation(t *testing.T, c *container) {
	for _, dir := range []string{c.dir, filepath.Join(c.dir, leaf)} {
		var owned []string
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			switch path := filepath.Join(dir, entry.Name()); {
			case entry.IsDir(): // is looked at on its own
			case owner(t, path) == c.owner:
				owned = append(owned, entry.Name())
			case owner(t, path) != 0:
				t.Errorf("%s belongs to %d", path, owner(t, path))
			}
		}
		slices.Sort(owned)
		equal(t, dir+" given away", owned, delegated(t, dir))
		equal(t, dir+" belongs to", owner(t, dir), c.owner)
	}
	equal(t, "the parent belongs to", owner(t, filepath.Dir(c.dir)), 0)
}

// writes opens all files for writing, inside.
func writes(t *testing.T, c *container) {
	got := c.exec(t, `
cd /sys/fs/cgroup
n=0
for f in * init.scope/*; do
	[ -f "$f" ] || continue
	n=$((n+1))
	(: > "$f") 2>/dev/null && echo "$f opened"
done
echo tried $n
for f in memory.max pids.max cpu.max cgroup.freeze; do
	chmod 666 $f 2>/dev/null && echo "$f changed"
	chown 0:0 $f 2>/dev/null && echo "$f changed"
done
mkdir /tmp/again && mount -t cgroup2 none /tmp/again && {
	echo mounted again
	(echo max > /tmp/again/memory.max) 2>/dev/null && echo "memory.max written"
	umount /tmp/again
}
echo end reached`)
	if n := number(t, got["tried"]); n < 80 {
		t.Errorf("only %d files were tried", n)
	}
	equal(t, "cgroup2", got["mounted"], "again")
	for _, name := range []string{"end", "tried", "mounted"} {
		delete(got, name)
	}
	var want []string
	for _, name := range delegated(t, c.dir) {
		want = append(want, name+":opened")
	}
	for _, name := range delegated(t, filepath.Join(c.dir, leaf)) {
		want = append(want, leaf+"/"+name+":opened")
	}
	var opened []string
	for name, how := range got {
		opened = append(opened, name+":"+how)
	}
	slices.Sort(opened)
	slices.Sort(want)
	equal(t, "writable", opened, want)
}

// innerLimits makes groups inside, as dockerd does, without any preparation.
func innerLimits(t *testing.T, c *container) {
	got := c.exec(t, `
cd /sys/fs/cgroup
echo init $(cat /proc/1/cgroup)
echo exec $(cat /proc/self/cgroup)
echo enabled $(cat cgroup.subtree_control)
echo controllers $(cat cgroup.controllers)
mkdir inner
echo inner $(cat inner/cgroup.controllers)

echo 3 > inner/pids.max
sh -c 'echo $$ > inner/cgroup.procs; echo in $(grep -c . inner/cgroup.procs); for i in 1 2 3 4 5 6; do sleep 1 & done; wait' > /tmp/out 2> /tmp/err
echo forks $(grep -c "can't fork" /tmp/err)
echo $(cat inner/pids.events)
echo max > inner/pids.max

echo 16777216 > inner/memory.max
echo memory $(cat inner/memory.max)
sh -c 'echo $$ > inner/cgroup.procs; dd if=/dev/zero of=/dev/null bs=48M count=1; echo status $?' 2> /tmp/err
echo $(grep -w oom_kill inner/memory.events)

mkdir inner/deeper && echo deeper made
echo +pids > inner/cgroup.subtree_control && echo subtree written
while grep -q . inner/cgroup.procs; do sleep 0.1; done
rmdir inner/deeper inner && echo inner-groups removed
echo end reached`)
	equal(t, "group of init", got["init"], "0::/"+leaf)
	equal(t, "group of the script", got["exec"], "0::/"+leaf)
	equal(t, "enabled controllers", got["enabled"], got["controllers"])
	equal(t, "controllers inside", got["inner"], got["controllers"])
	for _, controller := range []string{"cpuset", "cpu", "io", "memory", "pids"} {
		if !slices.Contains(strings.Fields(got["inner"]), controller) {
			t.Errorf("no controller %q", controller)
		}
	}
	if got["forks"] == "0" || got["max"] == "0" || got["max"] == "" {
		t.Errorf("more processes than allowed: %v", got)
	}
	equal(t, "memory.max inside", got["memory"], 16<<20)
	equal(t, "beyond it", got["status"], 137)
	equal(t, "killed for want of memory", got["oom_kill"], 1)
	equal(t, "nested group", got["deeper"]+" "+got["subtree"]+" "+got["inner-groups"], "made written removed")
}

// outerLimits goes beyond what the container may use, and looks at what lxcfs
// tells of it.
func outerLimits(t *testing.T, c *container) {
	got := c.exec(t, `
grep MemTotal: /proc/meminfo
echo free $(`+runFree+` -k | awk '/^Mem:/ { print $2 }')
mkdir /sys/fs/cgroup/big && echo max > /sys/fs/cgroup/big/memory.max
sh -c 'echo $$ > /sys/fs/cgroup/big/cgroup.procs; dd if=/dev/zero of=/dev/null bs=256M count=1; echo status $?' 2>/dev/null
rmdir /sys/fs/cgroup/big
unused() { awk '/^MemFree:/ { print $2 }' /proc/meminfo; }
before=$(unused)
mkdir /sys/fs/cgroup/beside
sh -c 'echo $$ > /sys/fs/cgroup/beside/cgroup.procs; exec dd if=/dev/zero of=/dev/shm/fill bs=1M count=32' 2>/dev/null
echo beside $((before - $(unused)))
rm /dev/shm/fill
rmdir /sys/fs/cgroup/beside
timeout 1 sh -c 'while :; do :; done'
echo end reached`)
	equal(t, "MemTotal", strings.Join(strings.Fields(got["MemTotal:"]), " "), fmt.Sprintf("%d kB", memoryLimit>>10))
	equal(t, "free", got["free"], memoryLimit>>10)
	if kib := number(t, got["beside"]); kib < 24<<10 || kib > 40<<10 {
		t.Errorf("32 MiB in a group beside the leaf take %d KiB of what is free", kib)
	}
	equal(t, "beyond the limit", got["status"], 137)
	if text := read(t, c.dir, "memory.events"); strings.Contains(text, "oom_kill 0") {
		t.Errorf("memory.events: %s", text)
	}
	if text := read(t, c.dir, "cpu.stat"); !strings.Contains(text, "nr_throttled") || strings.Contains(text, "nr_throttled 0") {
		t.Errorf("cpu.stat: %s", text)
	}
}

// pressure looks for the container's own pressure, which lxcfs serves from version 7
// on, where the host measures it (psi=1).
func pressure(t *testing.T, c *container, served bool) {
	_, err := os.ReadFile("/proc/pressure/cpu")
	got := c.exec(t, `
echo files $(grep -c ' /proc/pressure/.* fuse.lxcfs ' /proc/self/mountinfo)
echo lines $(cat /proc/pressure/memory 2>&1 | grep -c total=)
echo end reached`)
	switch {
	case err != nil:
		equal(t, "without measurements", got["files"]+" "+got["lines"], "0 0")
	case served:
		equal(t, "with lxcfs 7", got["files"]+" "+got["lines"], "3 2")
	default:
		equal(t, "with an older lxcfs", got["files"]+" "+got["lines"], "0 2")
	}
}

// upgrade replaces an older lxcfs by version 7 under a container.
func upgrade(t *testing.T, n node, old *rig.Lxcfs) {
	c := n.start(t, "upgraded", []string{"--memory-limit", fmt.Sprint(memoryLimit)}, "sleep", "1000")
	meminfo := func() string { return c.exec(t, "echo $(head -n 1 /proc/meminfo); echo end reached")["MemTotal:"] }
	want := fmt.Sprint(memoryLimit>>10, " kB")
	equal(t, "before", meminfo(), want)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "the host's memory", func() bool { return meminfo() != want })
	pressure(t, c, false)
	rig.LxcfsFor(t, peer.Lxcfs7, "")
	rig.Eventually(t, "the container's memory", func() bool { return meminfo() == want })
	if _, err := os.ReadFile("/proc/pressure/cpu"); err == nil {
		// What the older one did not serve comes as well.
		rig.Eventually(t, "pressure", func() bool {
			return c.exec(t, "echo files $(grep -c ' /proc/pressure/.* fuse.lxcfs ' /proc/self/mountinfo); echo end reached")["files"] == "3"
		})
	}
	pressure(t, c, true)
	c.remove(t)
}

// devices opens device nodes that came with the image and on a volume.
func devices(t *testing.T, c *container) {
	got := c.exec(t, `
for f in /nodes/* /volume/nodes/*; do
	if e=$( (: < "$f") 2>&1 ); then echo "$f opened"; else echo "$f ${e##*: }"; fi
done
echo end reached`)
	for _, dir := range []string{"/nodes/", "/volume/nodes/"} {
		for name := range deviceNodes {
			// With any other error, only the device is missing.
			want := "Operation not permitted"
			if name == "null" {
				want = "opened"
			}
			equal(t, dir+name, got[dir+name], want)
		}
	}
}

func pause(t *testing.T, c *container) {
	frozen := func(want string) {
		t.Helper()
		rig.Eventually(t, "frozen "+want, func() bool { return strings.Contains(read(t, c.dir, "cgroup.events"), "frozen "+want) })
	}
	frozen("0")
	c.Ctr(t.Context(), "tasks", "pause", c.id).Must(t)
	frozen("1")
	c.Ctr(t.Context(), "tasks", "resume", c.id).Must(t)
	frozen("0")
	equal(t, "after it", c.exec(t, "echo is alive; echo end reached")["is"], "alive")
}

func metrics(t *testing.T, c *container) {
	var m struct {
		Pids   struct{ Current int }
		Memory struct {
			Usage      int64
			UsageLimit int64 `json:"usage_limit"`
		}
		CPU struct {
			UsageUsec int64 `json:"usage_usec"`
		}
	}
	out := c.Ctr(t.Context(), "tasks", "metrics", "--format", "json", c.id).Must(t)
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	if m.Pids.Current == 0 || m.Memory.Usage == 0 || m.Memory.UsageLimit != memoryLimit || m.CPU.UsageUsec == 0 {
		t.Errorf("metrics are %s", out)
	}
}

// outOfMemory lets a program go beyond the limit, and then the first process
// itself. Systemd removes the group as soon as it is empty, which can be before
// the kernel's count of the second is read.
func outOfMemory(t *testing.T, n node) {
	topics := events(t, n)
	const script = "dd if=/dev/zero of=/dev/null bs=256M count=1; sleep 1; exec dd if=/dev/zero of=/dev/null bs=256M count=1"
	r := n.Ctr(t.Context(), n.run("oom", []string{"--rm", "--memory-limit", "67108864"}, "sh", "-c", script)...)
	equal(t, "exit status", r.Code, 137)
	seen := map[string]bool{}
	for deadline := time.After(rig.Patiently(time.Minute)); !seen["/tasks/oom"] || !seen["/tasks/delete"]; {
		select {
		case topic := <-topics:
			seen[topic] = true
		case <-deadline:
			t.Fatalf("only these events: %v", seen)
		}
	}
}
