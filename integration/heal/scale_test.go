// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// scaleEnv is how many containers TestHealScale has, 50 if it is not set.
const scaleEnv = "ISOLATE_HEAL_CONTAINERS"

// TestHealScale has an lxcfs under many containers, with a shim each, that comes and goes,
// and one that is stopped and goes on. Each time all containers come to show their limits,
// with one file in each place and of the living lxcfs. It prints how long that takes, and
// what the shims use of memory.
func TestHealScale(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE, rig.Long)
	many := 50
	if text := os.Getenv(scaleEnv); text != "" {
		var err error
		if many, err = strconv.Atoi(text); err != nil || many < 1 {
			t.Fatalf("%s=%q is no number of containers", scaleEnv, text)
		}
	}
	server, err := rig.StartLxcfs(t.Context(), peer.Lxcfs6, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	count := whole(t, peer.Crun121)
	h := on(t, peer.Crun121, many)
	all := crowd(h.startMany(t, many))
	all.heal(t, server, count, time.Now(), "after their start")
	before := all.pss(t)

	// restart has lxcfs end and start, once in each period.
	restart := func(times int, period time.Duration) {
		tick := time.NewTicker(period)
		defer tick.Stop()
		for ; times > 0; times-- {
			if err := server.Close(); err != nil {
				t.Fatal(err)
			}
			if server, err = rig.StartLxcfs(t.Context(), peer.Lxcfs6, dir); err != nil {
				t.Fatal(err)
			}
			if times > 1 {
				<-tick.C
			}
		}
	}
	for _, storm := range []struct {
		what   string
		times  int
		period time.Duration
	}{
		{"after one restart", 1, time.Second},
		{"after ten restarts in two seconds", 10, 200 * time.Millisecond},
		{"after a restart in each of twenty seconds", 20, time.Second},
	} {
		mark, begin := h.Mark(t), time.Now()
		restart(storm.times, storm.period)
		t.Logf("%d restarts took %v", storm.times, time.Since(begin).Round(time.Millisecond))
		all.heal(t, server, count, time.Now(), storm.what)
		all.show(t)
		all.quiet(t)
		said(t, h.Since(t, mark), "lxcfs has died", many, 1, storm.times)
		said(t, h.Since(t, mark), "lxcfs is back", many, 1, storm.times)
	}

	mark := h.Mark(t)
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	all.await(t, begin, "without the files of an lxcfs that is stopped", func(c container) bool { return len(files(t, c.pid)) == 0 })
	for time.Since(begin) < 20*time.Second {
		for _, c := range all {
			c.reads(t)
		}
		<-time.After(250 * time.Millisecond)
	}
	check := rig.Exec(t.Context(), "env", "PATH="+h.Bin+":/usr/sbin:/usr/bin:/sbin:/bin", "isolatectl", "check")
	want := fmt.Sprintf("kill -CONT %d", server.Pid())
	for line := range strings.Lines(check.Stdout) {
		if strings.Contains(line, "lxcfs: ") || strings.Contains(line, want) {
			t.Logf("isolatectl check: %s", strings.TrimSpace(line))
		}
	}
	if strings.Count(check.Stdout, want) != 1 || strings.Count(check.Stdout, "lxcfs: ") != 1 {
		t.Errorf("isolatectl check does not say %q once:\n%s", want, check.Stdout)
	}
	if err := server.Cont(); err != nil {
		t.Fatal(err)
	}
	all.heal(t, server, count, time.Now(), "after lxcfs went on")
	all.show(t)
	all.quiet(t)
	said(t, h.Since(t, mark), "lxcfs does not answer", many, 1, 1)
	said(t, h.Since(t, mark), "lxcfs is back", many, 1, 1)
	said(t, h.Since(t, mark), "lxcfs has died", 0, 0, 0)

	after := 0
	if !rig.Within(patience, func() bool { after = all.pss(t); return after < before*4/3 }) {
		t.Errorf("the shims use %d kB of memory, and %d kB before", after, before)
	}
	t.Logf("the shims of %d containers use %d kB of memory, and used %d kB before", many, after, before)
	for _, c := range all {
		c.remove(t)
	}
}

// crowd is many containers.
type crowd []container

// await waits until something holds for each container, and prints how long that took.
func (all crowd) await(t *testing.T, begin time.Time, what string, holds func(container) bool) {
	t.Helper()
	took := map[string]time.Duration{}
	if !rig.Within(patience, func() bool {
		for _, c := range all {
			if _, ok := took[c.id]; !ok && holds(c) {
				took[c.id] = time.Since(begin)
			}
		}
		return len(took) == len(all)
	}) {
		for _, c := range all {
			if _, ok := took[c.id]; !ok {
				t.Errorf("%s has %v of the servers %v", c.id, files(t, c.pid), servers(t, c.pid))
			}
		}
		t.Fatalf("%d of %d containers %s", len(took), len(all), what)
	}
	sorted := slices.Sorted(maps.Values(took))
	t.Logf("%d containers %s: %v (median), %v (worst)", len(all), what, sorted[len(all)/2].Round(time.Millisecond), sorted[len(all)-1].Round(time.Millisecond))
}

// heal waits until all have a file in each place, and of that lxcfs.
func (all crowd) heal(t *testing.T, server *rig.Lxcfs, count int, begin time.Time, what string) {
	t.Helper()
	var living unix.Stat_t
	if err := unix.Stat(server.Dir, &living); err != nil {
		t.Fatal(err)
	}
	device := fmt.Sprintf("%d:%d", unix.Major(living.Dev), unix.Minor(living.Dev))
	healed := func(c container) bool {
		of := servers(t, c.pid)
		return len(of) == 1 && of[device] == count && len(files(t, c.pid)) == count
	}
	all.await(t, begin, "have their files "+what+" of server "+device, healed)
	for _, c := range all { // also those that were looked at early
		if !healed(c) {
			t.Errorf("%s %s: mounts %v of servers %v, want %d of %s", c.id, what, files(t, c.pid), servers(t, c.pid), count, device)
		}
	}
}

// show has a program in each container read its limit.
func (all crowd) show(t *testing.T) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(4)
	for _, c := range all {
		group.Go(func() error { c.sees(t, total, shown); return nil })
	}
	_ = group.Wait() // each has told
}

// quiet waits until no shim has a helper.
func (all crowd) quiet(t *testing.T) {
	t.Helper()
	rig.Eventually(t, "the end of the shims' helpers", func() bool {
		lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(lines, func(path string) bool {
			line, err := os.ReadFile(path)
			return err == nil && (bytes.HasPrefix(line, []byte("isolate-heal\x00")) || bytes.HasPrefix(line, []byte("isolate-lxcfs-probe\x00")))
		})
	})
}

// pss is the memory of all shims, in kB.
func (all crowd) pss(t *testing.T) (sum int) {
	t.Helper()
	for _, c := range all {
		// The shim is the parent: it made itself a subreaper.
		shim := number(t, fmt.Sprintf("/proc/%d/status", c.pid), "PPid:")
		sum += number(t, fmt.Sprintf("/proc/%d/smaps_rollup", shim), "Pss:")
	}
	return sum
}

// number returns a number of a file of lines with a name and a number.
func number(t *testing.T, path, name string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %q in %q", name, path)
	return 0
}

// reads reads the container's meminfo, which is the kernel's and waits for nobody.
func (c container) reads(t *testing.T) {
	t.Helper()
	want := hostTotal(t)
	done := make(chan error, 1)
	go func() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/proc/meminfo", c.pid))
		if err == nil && !strings.HasPrefix(string(text), want) {
			err = fmt.Errorf("meminfo is %.40q", text)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("%s: %v", c.id, err)
		}
	case <-time.After(rig.Patiently(3 * time.Second)):
		t.Errorf("a new reader in %s waits", c.id)
	}
}

// said counts how many shims have said something, and how often each.
func said(t *testing.T, log, what string, shims, least, most int) {
	t.Helper()
	times := map[string]int{}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "isolate: "+what) {
			_, id, _ := strings.Cut(strings.TrimSpace(line), " id=")
			id, _, _ = strings.Cut(id, " ")
			times[id]++
		}
	}
	counts := slices.Sorted(maps.Values(times))
	if len(times) != shims || len(counts) > 0 && (counts[0] < least || counts[len(counts)-1] > most) {
		t.Errorf("%q was said by %d shims, want %d; by each so often: %v, want %d to %d", what, len(times), shims, counts, least, most)
	} else if len(counts) > 0 {
		t.Logf("%q was said by %d shims, by each %d to %d times", what, len(times), counts[0], counts[len(counts)-1])
	}
}
