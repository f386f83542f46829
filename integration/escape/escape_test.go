// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

var runtimes = []peer.Name{peer.Runc15, peer.Crun121}

// kind is a kind of container.
type kind struct {
	name string
	toml string
	// flags are those of ctr run.
	flags []string
	// groups are run one after the other; the last leaves little of the
	// container.
	groups []string
}

var kinds = []kind{
	{"filtered", "", nil, []string{"fds", "mounts", "processes", "ids", "devices", "syscalls", "limits", "sweep", "propagate"}},
	{"unfiltered", `seccomp = "keep"`, nil, []string{"fds", "mounts", "processes", "ids", "devices", "syscalls", "limits", "sweep", "propagate"}},
	{"privileged", "", []string{"--privileged"}, []string{"fds", "mounts", "processes", "devices", "syscalls", "limits", "sweep", "propagate"}},
	{"host-network", "", []string{"--net-host"}, []string{"mounts", "processes", "sweep"}},
	{"read-only", "", []string{"--read-only"}, []string{"root"}},
	{"off", `nesting = "off"`, []string{"--privileged"}, []string{"mounts", "devices", "processes", "sweep"}},
}

func TestEscape(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	rig.LxcfsFor(t, peer.Lxcfs5, "")
	attacks := 0
	for _, runtime := range runtimes {
		t.Run(string(runtime), func(t *testing.T) {
			n := startNode(t, runtime)
			for _, k := range kinds {
				t.Run(k.name, func(t *testing.T) {
					attack(t, n, k)
					attacks++
				})
			}
			t.Run("neighbours", func(t *testing.T) { neighbours(t, n) })
			t.Run("members", func(t *testing.T) { members(t, n) })
			t.Run("cwd", func(t *testing.T) { workingDirectories(t, n) })
		})
	}
	if attacks < len(runtimes)*len(kinds) {
		return // only some were asked for
	}
	for _, r := range table {
		if !r.used && !r.elsewhere() {
			t.Errorf("nothing was tried for the row %q %q", r.name, r.kinds)
		}
	}
}

// attack runs one container and compares the host.
func attack(t *testing.T, n node, k kind) {
	rig.Configure(t, k.toml)
	dir := makeVolumes(t)
	host(t, n, filepath.Join(dir, "rw")).write(t, filepath.Join(dir, "facts"))
	before, leftovers := hostSettings(t), rig.MustSnapshot(t)
	c := start(t, n, dir, k.flags...)
	limits, mounts := groupSettings(t, c.pid), hostMounts(t)

	var attempts []attempt
	for _, g := range k.groups {
		attempts = append(attempts, c.run(t, nil, "/inside", g)...)
	}
	attempts = append(attempts, c.first(t)...)
	judge(t, k, attempts)
	for _, g := range k.groups {
		if !slices.Contains(attempts, attempt{Name: "end/" + g, Result: "allowed"}) {
			t.Errorf("group %s did not come to its end", g)
		}
	}
	for name, least := range map[string]int{"sweep/tried": 2000, "limits/tried": 50} {
		for _, a := range attempts {
			if a.Name == name && atoi(t, a.Result) < least {
				t.Errorf("%s: only %s files", name, a.Result)
			}
		}
	}

	same(t, limits, groupSettings(t, c.pid))
	same(t, before, hostSettings(t))
	for ns, now := range hostMounts(t) {
		was, ok := mounts[ns]
		for line := range strings.Lines(now) {
			if ok && !strings.Contains(was, line) {
				t.Errorf("new mount in a namespace of the host: %s", line)
			}
		}
		for line := range strings.Lines(was) {
			if !strings.Contains(now, line) {
				t.Errorf("a namespace of the host has lost the mount %s", line)
			}
		}
	}
	c.unchanged(t)
	n.Container(c.id).Remove(t)
	gone(t, leftovers)
}

// unchanged looks at the volumes that the container could only read.
func (c *container) unchanged(t *testing.T) {
	t.Helper()
	for _, name := range []string{"file", "ro/file"} {
		if got := read(t, filepath.Join(c.dir, name)); got != "original" {
			t.Errorf("%s holds %q", name, got)
		}
	}
	entries, err := filepath.Glob(filepath.Join(c.dir, "ro", "*"))
	if err != nil || len(entries) != 4 {
		t.Errorf("the read-only volume holds %q, %v", entries, err)
	}
}

// gone waits until the rig looks as before. What the shim keeps below /run from
// one container to the next, locks of id ranges and features of runtimes, is
// the business of other tests.
func gone(t *testing.T, before rig.Leftovers) {
	t.Helper()
	rig.MustMatch(t, before, rig.File)
}

// workingDirectories starts programs in directories that a runtime might have
// open (CVE-2024-21626).
func workingDirectories(t *testing.T, n node) {
	dir := makeVolumes(t)
	facts{}.write(t, filepath.Join(dir, "facts"))
	c := start(t, n, dir)
	escaped := func(what string, r rig.Result) {
		if r.Code == 0 && !strings.Contains(r.Stdout, `"cwd","result":"/"`) {
			t.Errorf("%s: %s", what, r.Stdout)
		}
		if r.Code != 0 && strings.Contains(r.Stdout, `"cwd"`) {
			t.Errorf("%s ran in part: %v", what, r.Err())
		}
	}
	for fd := 3; fd < 11; fd++ {
		cwd := fmt.Sprintf("/proc/self/fd/%d", fd)
		escaped("exec in "+cwd, n.Container(c.id).Exec(t, []string{"--cwd", cwd}, "/inside", "fds"))
	}
	for _, fd := range []int{7, 8} {
		cwd := fmt.Sprintf("/proc/self/fd/%d", fd)
		made++
		escaped("run in "+cwd, n.Ctr(t.Context(), "run", "--rm", "--runtime", runtimeName, "--cwd", cwd,
			"--mount", "type=bind,src="+program(t)+",dst=/inside,options=rbind:ro",
			"--mount", "type=bind,src="+filepath.Join(dir, "facts")+",dst=/vol/facts,options=rbind:ro",
			n.image, fmt.Sprintf("c%d", made), "/inside", "fds"))
	}
	judge(t, kinds[0], c.first(t))
}

// neighbours has one container leave things behind for another one with the same
// volume.
func neighbours(t *testing.T, n node) {
	dir := makeVolumes(t)
	f := host(t, n, filepath.Join(dir, "rw"))
	f.write(t, filepath.Join(dir, "facts"))
	a := start(t, n, dir)
	for _, attempt := range a.run(t, nil, "/inside", "ids") {
		switch attempt.Name {
		case "left/key":
			f.OtherKey = atoi(t, attempt.Result)
		case "left/ipc":
			f.OtherIPC = atoi(t, attempt.Result)
		}
	}
	if f.OtherKey == 0 || f.OtherIPC == 0 {
		t.Fatal("the first container has left nothing")
	}
	f.write(t, filepath.Join(dir, "facts"))
	b := start(t, n, dir, "--allow-new-privs")
	judge(t, kinds[0], b.run(t, nil, "/inside", "processes"))

	// Ids on disk are the containers' own, in both.
	who := results(b.run(t, nil, "/inside", "whoami"))
	if who["owner/owned"] != "1000:1000" || who["owner/setuid"] != "0:0" {
		t.Errorf("the other container sees owners %v", who)
	}
	if owner := owner(t, filepath.Join(dir, "rw/owned")); owner != "1000:1000" {
		t.Errorf("on the host, the file belongs to %s", owner)
	}
	// A set-user-id program is the root of the container it runs in, whoever
	// made it.
	for _, test := range []struct{ program, ids, capabilities string }{
		{"setuid", "1000 0", "1ffffffffff"},
		{"capable", "1000 1000", "0000200000"},
	} {
		attempts := b.run(t, []string{"--user", "1000"}, "/vol/rw/"+test.program, "whoami")
		who := results(attempts)
		if who["whoami"] != test.ids || !strings.HasSuffix(who["whoami/capabilities"], test.capabilities) {
			t.Errorf("%s has become %v", test.program, who)
		}
		if base := baseOf(t, b.pid); !slices.Contains(attempts, attempt{"whoami", test.ids, fmt.Sprintf("0 %d 65536", base)}) {
			t.Errorf("%s runs with %v, and the container with ids from %d", test.program, attempts, base)
		}
	}
	if baseOf(t, a.pid) == baseOf(t, b.pid) {
		t.Error("two containers have the same ids")
	}
}

// members has a container attack another one, with which it shares network, ipc and
// ids, as those of a pod do.
func members(t *testing.T, n node) {
	rig.Require(t, rig.Kernel("6.5")) // SO_PEERPIDFD
	dir := makeVolumes(t)
	facts{}.write(t, filepath.Join(dir, "facts"))
	a := start(t, n, dir)
	var flags []string
	for kind, file := range map[string]string{"network": "net", "ipc": "ipc", "uts": "uts"} {
		flags = append(flags, "--with-ns", fmt.Sprintf("%s:/proc/%d/ns/%s", kind, a.pid, file))
	}
	b := start(t, n, dir, flags...)
	if baseOf(t, a.pid) != baseOf(t, b.pid) {
		t.Error("members have ids of their own")
	}
	for _, pair := range [][2]*container{{a, b}, {b, a}} {
		address := "@" + pair[0].id
		meeting := rig.ExecID()[1]
		n.Ctr(t.Context(), "tasks", "exec", "--detach", "--exec-id", meeting, pair[0].id, "/inside", "meet", address).Must(t)
		attempts := pair[1].run(t, nil, "/inside", "peer", address)
		for _, attempt := range attempts {
			if want := memberResults[attempt.Name]; !slices.Contains(strings.Fields(want), attempt.Result) {
				t.Errorf("%s: %s, want %q", attempt.Name, attempt.Result, want)
			}
		}
		if len(attempts) != len(memberResults) {
			t.Errorf("tried were %v", attempts)
		}
		n.Ctr(t.Context(), "tasks", "kill", "--signal", "KILL", "--exec-id", meeting, pair[0].id).Must(t)
	}
}

var memberResults = map[string]string{
	"peer/setns:mnt": "EPERM", "peer/setns:pid": "EPERM", "peer/setns:cgroup": "EPERM", "peer/getfd": "EPERM",
	"peer/ioctl":  "EPERM EACCES ENOTTY", // before Linux 6.11
	"peer/walk":   "EPERM ENOENT ENOTTY", // before Linux 6.12
	"peer/signal": "EINVAL", "peer/number": "hidden",
}

func results(attempts []attempt) map[string]string {
	out := map[string]string{}
	for _, a := range attempts {
		out[a.Name] = a.Result
	}
	return out
}
