// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// each runs a test with each lxcfs and each OCI runtime.
func each(t *testing.T, test func(t *testing.T, lxcfs, runtime peer.Name)) {
	for _, lxcfs := range []peer.Name{peer.Lxcfs5, peer.Lxcfs6} {
		for _, runtime := range []peer.Name{peer.Runc15, peer.Crun121} {
			t.Run(string(lxcfs)+"/"+string(runtime), func(t *testing.T) {
				rig.Require(t, rig.Root, rig.FUSE)
				test(t, lxcfs, runtime)
			})
		}
	}
}

// TestHeal kills lxcfs and starts it again, twice, under containers that share a
// shim and one that has changed its own files.
func TestHeal(t *testing.T) {
	each(t, func(t *testing.T, lxcfs, runtime peer.Name) {
		h := on(t, runtime, 4, patient)
		h.start(t, "first").remove(t) // what is made once stays, with lxcfs and without
		server, err := rig.StartLxcfs(t.Context(), lxcfs, dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := server.Close(); err != nil {
				t.Error(err)
			}
		})
		for range 4 {
			h.start(t, "first").remove(t)
		}
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		before := rig.MustSnapshot(t)
		if server, err = rig.StartLxcfs(t.Context(), lxcfs, dir); err != nil {
			t.Fatal(err)
		}
		a := h.start(t, "a", "--annotation", "io.containerd.runc.v2.group=together")
		b := h.start(t, "b", "--annotation", "io.containerd.runc.v2.group=together")
		own := h.start(t, "own")
		all := files(t, a.pid)
		count := len(all)
		if count < 6 {
			t.Fatalf("files %v", all)
		}
		for _, c := range []container{a, b, own} {
			c.sees(t, total, shown)
		}
		// What the container's root did stays as it is.
		own.sees(t, "umount /proc/swaps && echo mine >/mine && mount --bind /mine /proc/loadavg && head -c 8 /proc/swaps", "Filename")
		// A process with mounts of its own, cut off from the container's.
		own.exec(t, "unshare -m --propagation private sleep 86300 >/dev/null 2>&1 &").Must(t)
		cutOff := 0
		rig.Eventually(t, "process with mounts of its own", func() bool {
			cutOff = processOf(t, "sleep 86300")
			return cutOff != 0
		})
		readable(t, cutOff, 1)
		for round := range 2 {
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
			for _, c := range []container{a, b} {
				until(t, c.pid, 0)
				c.sees(t, total, hostTotal(t))
				c.exec(t, "free >/dev/null && uptime >/dev/null && top -bn1 >/dev/null").Must(t)
			}
			until(t, own.pid, 1) // the file below its own mount
			readable(t, cutOff, 0)
			own.sees(t, total+"; cat /proc/loadavg", hostTotal(t)+"\nmine")
			meanwhile := h.start(t, fmt.Sprint("meanwhile", round))
			meanwhile.sees(t, total, hostTotal(t))

			unmount(t)
			if server, err = rig.StartLxcfs(t.Context(), lxcfs, dir); err != nil {
				t.Fatal(err)
			}
			for _, c := range []container{a, b, meanwhile} {
				until(t, c.pid, count)
				c.sees(t, total, shown)
				if got := files(t, c.pid); !maps.Equal(got, all) {
					t.Errorf("%s has the mounts %v, want %v", c.id, got, all)
				}
			}
			until(t, own.pid, count-1) // without swaps; that below loadavg is the dead one
			readable(t, cutOff, 1)
			own.sees(t, total+"; cat /proc/loadavg; head -c 8 /proc/swaps", shown+"\nmine\nFilename")
			meanwhile.remove(t)
		}
		for _, c := range []container{a, b, own} {
			c.remove(t)
		}
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		rig.MustMatch(t, before)
	})
}

// readable waits until a process has that many mounts of lxcfs on its meminfo, and
// fails if it cannot be read there.
func readable(t *testing.T, pid, mounts int) {
	t.Helper()
	rig.Eventually(t, fmt.Sprintf("%d mounts on the meminfo of process %d", mounts, pid), func() bool {
		return files(t, pid)["/proc/meminfo"] == mounts
	})
	if got := rig.Exec(t.Context(), "nsenter", "-t", strconv.Itoa(pid), "-m", "head", "-n1", "/proc/meminfo").Must(t); !strings.HasPrefix(got, "MemTotal:") {
		t.Errorf("process %d sees %q", pid, got)
	}
}

// processOf finds a process by the beginning of its command line; 0 for none.
func processOf(t *testing.T, begin string) int {
	t.Helper()
	out, err := exec.Command("pgrep", "-f", "^"+begin).Output()
	if err != nil {
		return 0 // it says so by its exit status
	}
	pid := 0
	if _, err := fmt.Sscan(string(out), &pid); err != nil {
		return 0
	}
	return pid
}

// TestHealAbsent starts lxcfs, under a container that had none, and somewhere else
// than usual.
func TestHealAbsent(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	h := on(t, peer.Runc15, 2)
	c := h.start(t, "a")
	c.sees(t, total, hostTotal(t))
	server := rig.LxcfsFor(t, peer.Lxcfs5, "/run/lxcfs-elsewhere")
	rig.Eventually(t, "files of lxcfs", func() bool { return len(files(t, c.pid)) > 0 })
	c.sees(t, total, shown)
	// It is watched from now on.
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, c.pid, 0)
	c.sees(t, total, hostTotal(t))
	c.remove(t)
}

// TestHealHung stops lxcfs: who reads its files after a moment gets the host's values,
// also in a shim with several containers, and they are back when it goes on.
func TestHealHung(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	server := rig.LxcfsFor(t, peer.Lxcfs5, dir)
	count := whole(t, peer.Runc15)
	h := on(t, peer.Runc15, 4)
	together := []string{"--annotation", "io.containerd.runc.v2.group=together"}
	all := []container{h.start(t, "a", together...), h.start(t, "b", together...), h.start(t, "c")}
	for _, c := range all {
		until(t, c.pid, count)
	}
	all[0].exec(t, "unshare -m --propagation private sleep 86301 >/dev/null 2>&1 &").Must(t)
	inner := 0
	rig.Eventually(t, "process with mounts of its own", func() bool {
		inner = processOf(t, "sleep 86301")
		return inner != 0
	})
	for round := range 2 {
		mark := h.Mark(t)
		if err := server.Stop(); err != nil {
			t.Fatal(err)
		}
		late := h.start(t, "late", slices.Repeat(together, round)...) // warns, and has the host's
		late.sees(t, total, hostTotal(t))
		for _, c := range all {
			until(t, c.pid, 0)
			c.sees(t, total, hostTotal(t))
		}
		readable(t, inner, 0)
		said := func() int { return strings.Count(h.Since(t, mark), "isolate: lxcfs does not answer: it is stopped") }
		rig.Eventually(t, "two shims have said so", func() bool { return said() >= 2 })
		if err := server.Cont(); err != nil {
			t.Fatal(err)
		}
		for _, c := range append(slices.Clone(all), late) {
			until(t, c.pid, count)
			c.sees(t, total, shown)
		}
		readable(t, inner, 1)
		if n := said(); n != 2 {
			t.Errorf("two shims have said it %d times", n)
		}
		late.remove(t)
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		until(t, c.pid, 0)
		c.sees(t, total, hostTotal(t))
		c.remove(t)
	}
}

// TestHealHungReader has a program in each of many containers wait for an lxcfs that
// hangs: that is what gives the hang away, and the end of the connection is what frees
// them. It prints how long they wait.
func TestHealHungReader(t *testing.T) {
	const many = 20
	rig.Require(t, rig.Root, rig.FUSE)
	h := on(t, peer.Crun121, many+1, "[lxcfs]\nabort_hung = true")
	server := rig.LxcfsFor(t, peer.Lxcfs6, dir)
	all := h.startMany(t, many)
	for _, a := range all {
		rig.Eventually(t, "files of lxcfs", func() bool { return len(files(t, a.pid)) > 0 })
	}
	mark := h.Mark(t)
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	waited := make([]time.Duration, many)
	begin := time.Now()
	var readers sync.WaitGroup
	for i, a := range all {
		readers.Go(func() {
			r := rig.Exec(t.Context(), "nsenter", "-t", strconv.Itoa(a.pid), "-m", "head", "-n1", "/proc/meminfo")
			waited[i] = time.Since(begin)
			if r.Code == 0 && r.Stdout != "" && strings.TrimSpace(r.Stdout) != hostTotal(t) {
				t.Errorf("who waited has read %q", r.Stdout)
			}
		})
	}
	readers.Wait()
	slices.Sort(waited)
	t.Logf("readers in %d containers were free %v to %v after lxcfs was stopped", many, waited[0].Round(time.Millisecond), waited[many-1].Round(time.Millisecond))
	if waited[many-1] > patience/2 {
		t.Errorf("a reader has waited for %v", waited[many-1])
	}
	for _, a := range all {
		until(t, a.pid, 0)
	}
	all[0].sees(t, total, hostTotal(t))
	// Each shim says that lxcfs hangs. One that comes late finds no connection any more.
	said := map[string]int{}
	for _, line := range h.Warnings(t, mark) {
		if strings.Contains(line, "lxcfs.abort_hung") {
			said[line[strings.Index(line, " id=")+1:]]++
		}
	}
	for who, n := range said {
		if n != 1 {
			t.Errorf("said %d times: %s", n, who)
		}
	}
	if len(said) == 0 || len(said) > many {
		t.Errorf("%d shims have said that they ended the connection", len(said))
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		a.remove(t)
	}
}

// TestHealRequired has containers that must not start without lxcfs: those that
// run go on without it, and get it back in its next version.
func TestHealRequired(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	h := on(t, peer.Crun121, 2, patient, "mode = \"require\"")
	server := rig.LxcfsFor(t, peer.Lxcfs5, dir)
	a := h.start(t, "a")
	count := len(files(t, a.pid))
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, a.pid, 0)
	a.sees(t, total, hostTotal(t))
	if r := h.Ctr(t.Context(), "run", "--rm", "--runtime", shimName, h.Image(t, image.Demo), "b", "true"); r.Code == 0 || !strings.Contains(r.Stderr, "lxcfs.mode") {
		t.Errorf("not refused: %v", r.Err())
	}
	h.Ctr(t.Context(), "containers", "rm", "b")
	unmount(t)
	rig.LxcfsFor(t, peer.Lxcfs6, dir)
	until(t, a.pid, count)
	a.sees(t, total, shown)
	a.remove(t)
}

// TestHealOff leaves containers alone that are to have nothing of lxcfs.
func TestHealOff(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	h := on(t, peer.Runc15, 2, "[lxcfs]\nmode = \"off\"")
	a := h.start(t, "a")
	rig.LxcfsFor(t, peer.Lxcfs5, dir)
	on(t, peer.Runc15, 2, patient)
	b := h.start(t, "b")
	b.sees(t, total, shown)
	a.sees(t, total, hostTotal(t))
	a.remove(t)
	b.remove(t)
}

// TestHealMany kills lxcfs under twenty containers with a shim each.
func TestHealMany(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	h := on(t, peer.Crun121, 20, patient)
	server := rig.LxcfsFor(t, peer.Lxcfs5, dir)
	var all []container
	for n := range 20 {
		all = append(all, h.start(t, fmt.Sprint("c", n)))
	}
	count := len(files(t, all[0].pid))
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		until(t, c.pid, 0)
	}
	all[7].sees(t, total, hostTotal(t))
	unmount(t)
	rig.LxcfsFor(t, peer.Lxcfs5, dir)
	for _, c := range all {
		until(t, c.pid, count)
	}
	all[13].sees(t, total, shown)
	for _, c := range all {
		c.remove(t)
	}
}
