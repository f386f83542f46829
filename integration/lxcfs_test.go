// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// eachLxcfs runs a test with each lxcfs that Debian has.
func eachLxcfs(t *testing.T, test func(t *testing.T, name peer.Name)) {
	for _, name := range []peer.Name{peer.Lxcfs5, peer.Lxcfs6} {
		t.Run(string(name), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE)
			test(t, name)
		})
	}
}

// served lists what an lxcfs serves, this kernel has and a container gets, as
// absolute paths. Below /sys it shows the host's files as they are, except for the
// CPUs online. Withheld are slabinfo, diskstats on cgroup v1, and uptime, which a
// time namespace makes right.
func served(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "proc"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		name := strings.TrimPrefix(path, dir)
		_, v1 := os.Stat("/sys/fs/cgroup/blkio")
		if name == "/proc/slabinfo" || name == "/proc/uptime" || name == "/proc/diskstats" && v1 == nil {
			return nil
		}
		if _, err := os.Stat(name); err == nil {
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	const online = "/sys/devices/system/cpu/online"
	if _, err := os.Stat(filepath.Join(dir, online)); err == nil {
		files = append(files, online)
	}
	slices.Sort(files)
	return files
}

// sections splits an output at lines "== name".
func sections(text string) map[string]string {
	parts := map[string]string{}
	for part := range strings.SplitSeq("\n"+text, "\n== ") {
		name, body, _ := strings.Cut(part, "\n")
		parts[name] = strings.TrimSpace(body)
	}
	return parts
}

// uptime is the first number of a /proc/uptime, in seconds.
func uptime(t *testing.T, text string) float64 {
	t.Helper()
	first, _, _ := strings.Cut(text, " ")
	s, err := strconv.ParseFloat(first, 64)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLxcfs shows a container its limits in all that lxcfs serves.
func TestLxcfs(t *testing.T) {
	const script = `
echo == mounts; awk '$0 ~ / - fuse.lxcfs /{print $5}' /proc/self/mountinfo | sort -u
echo == unreadable; for f in $(awk '$0 ~ / - fuse.lxcfs /{print $5}' /proc/self/mountinfo); do cat $f >/dev/null || echo $f; done
echo == free; free -m
echo == meminfo; cat /proc/meminfo
echo == swaps; cat /proc/swaps
echo == online; cat /sys/devices/system/cpu/online
echo == nproc; grep -c ^processor /proc/cpuinfo
echo == stat; grep -c '^cpu[0-9]' /proc/stat
echo == uptime; cat /proc/uptime
echo == loadavg; cat /proc/loadavg
echo == write; for f in /proc/meminfo /sys/devices/system/cpu/online; do (echo 1 >$f) 2>/dev/null && echo $f; done
echo == end`
	eachLxcfs(t, func(t *testing.T, name peer.Name) {
		server := rig.LxcfsFor(t, name, "")
		rig.Configure(t, "lxcfs.timeout_ms = 20000\n") // for a busy machine
		h := hostOf(t, peer.Containerd24)
		want := served(t, server.Dir)
		for _, must := range []string{
			"/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/loadavg",
			"/proc/swaps", "/sys/devices/system/cpu/online",
		} {
			if !slices.Contains(want, must) {
				t.Errorf("lxcfs does not serve %s", must)
			}
		}
		for limit, flags := range map[string][]string{"cpuset": {"--cpuset-cpus", "0"}, "quota": {"--cpus", "0.5"}} {
			t.Run(limit, func(t *testing.T) {
				mark, begin := h.Mark(t), time.Now()
				r := h.run(t, "a", append(flags, "--memory-limit", "268435456"), "sh", "-c", script)
				r.Must(t)
				got := sections(r.Stdout)
				if _, ok := got["end"]; !ok {
					t.Fatalf("printed %q, %q", r.Stdout, r.Stderr)
				}
				if mounts := strings.Fields(got["mounts"]); !slices.Equal(mounts, want) {
					t.Errorf("mounted are %q, want %q", mounts, want)
				}
				if got["unreadable"] != "" || got["write"] != "" {
					t.Errorf("unreadable %q, writable %q", got["unreadable"], got["write"])
				}
				if fields := strings.Fields(got["free"]); len(fields) < 8 || fields[6] != "Mem:" || fields[7] != "256" {
					t.Errorf("free prints\n%s", got["free"])
				}
				if !strings.HasPrefix(got["meminfo"], "MemTotal:         262144 kB") {
					t.Errorf("meminfo is\n%s", got["meminfo"])
				}
				if got["online"] != "0" || got["nproc"] != "1" || got["stat"] != "1" {
					t.Errorf("CPUs online are %q, in cpuinfo %q, in stat %q", got["online"], got["nproc"], got["stat"])
				}
				// Whole seconds; the container is younger than this test's patience.
				if up := uptime(t, got["uptime"]); up > time.Since(begin).Seconds()+2 {
					t.Errorf("it has been up for %v s of %v", up, time.Since(begin))
				}
				if len(strings.Fields(got["loadavg"])) != 5 {
					t.Errorf("loadavg is %q", got["loadavg"])
				}
				if w := h.Warnings(t, mark); len(w) > 0 {
					t.Errorf("warned: %q", w)
				}
			})
		}
		// What a container does to its files is its own affair, and what the host
		// does to lxcfs is the host's.
		t.Run("propagation", func(t *testing.T) {
			h.start(t, "a", "--rootfs-propagation", "rshared")
			before := rig.MustSnapshot(t)
			h.exec(t, "a", "mount", "--bind", "/etc/passwd", "/proc/meminfo").Must(t)
			if got := h.exec(t, "a", "head", "-n1", "/proc/meminfo").Must(t); !strings.HasPrefix(got, "root:") {
				t.Errorf("the container could not cover its file: it shows %q", got)
			}
			if after := rig.MustSnapshot(t); !maps.Equal(before.Mounts, after.Mounts) {
				t.Errorf("the host's mounts changed: %q", before.Diff(after))
			}
			if text, err := os.ReadFile(filepath.Join(server.Dir, "proc/meminfo")); err != nil || !strings.HasPrefix(string(text), "MemTotal:") {
				t.Errorf("the host's lxcfs shows %q, %v", text, err)
			}
			target := filepath.Join(server.Dir, "proc/loadavg")
			if err := unix.Mount("/etc/passwd", target, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			if got := h.exec(t, "a", "cat", "/proc/loadavg").Must(t); strings.HasPrefix(got, "root:") {
				t.Errorf("the container sees a mount of the host's: %q", got)
			}
			if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
			h.Container("a").Remove(t)
		})
	})
}

// TestProcessTimes: what ps makes of start times and uptime is right, in the
// container and in what is executed there.
func TestProcessTimes(t *testing.T) {
	const loop = `timeout 60 sh -c 'while :; do :; done' & exec sleep 60`
	const script = `sleep 2; cut -d. -f1 /proc/uptime; ps -eo etimes=,pcpu=,args= | awk '/while/ && !/timeout|awk|sleep/{print $1, int($2); exit}'; readlink /proc/self/ns/time`
	rig.Require(t, rig.Root, rig.FUSE)
	rig.LxcfsFor(t, peer.Lxcfs6, "")
	host, err := os.Readlink("/proc/self/ns/time")
	if err != nil {
		t.Fatal(err)
	}
	for _, runtime := range []peer.Name{peer.Runc15, peer.Crun121, peer.Crun18} {
		t.Run(string(runtime), func(t *testing.T) {
			m := demoMachine(t, runtime, "[lxcfs]", `mode = "require"`, "timeout_ms = 10000")
			check := func(way, out string) {
				var up, elapsed, cpu int
				var clocks string
				if _, err := fmt.Sscan(out, &up, &elapsed, &cpu, &clocks); err != nil {
					t.Errorf("%s: %q: %v", way, out, err)
				}
				if up < 1 || up > 60 || elapsed < 1 || elapsed > up+1 || cpu < 1 || clocks == host {
					t.Errorf("%s: up %d s; a loop has run for %d s and used %d %% of a processor; clocks %s", way, up, elapsed, cpu, clocks)
				}
			}
			check("run", m.run(t, nil, "sh", "-c", "("+loop+") & "+script).Must(t))
			m.start(t, "clocks", nil, "sh", "-c", loop)
			check("exec", m.exec(t, "clocks", nil, "sh", "-c", script).Must(t))
		})
	}
}

// TestAskedClocks: a caller's own offsets are the container's, with any runtime that
// knows time namespaces.
func TestAskedClocks(t *testing.T) {
	for _, runtime := range []peer.Name{peer.Runc15, peer.Crun121, peer.Crun18} {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			seen := filepath.Join(t.TempDir(), "offsets")
			config := m.bundle(t, tinyRootfs(t, 0), func(s *specs.Spec) {
				s.Process.Args = []string{"/inside", "report"}
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
				s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000000, Nanosecs: 5}}
				script := `exec cat "/proc/$(sed 's/.*"pid": *\([0-9]*\).*/\1/')/timens_offsets" >` + seen
				s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}}}}
			})
			t.Cleanup(func() { m.Container("a").Remove(t) })
			m.Output(t, "run", "--rm", "--runtime", shimName, "--config", config, "a").Must(t)
			data, err := os.ReadFile(seen)
			if got := strings.Join(strings.Fields(string(data)), " "); err != nil || got != "monotonic 0 0 boottime 1000000 5" {
				t.Errorf("offsets %q, %v", got, err)
			}
		})
	}
}

// TestLxcfsSurvivesDeepCgroups: lxcfs reads the files of the reader's groups by
// path, in each hierarchy. Groups whose path is longer than the kernel takes must
// not end it, since with it every container loses its view.
func TestLxcfsSurvivesDeepCgroups(t *testing.T) {
	rig.Require(t, rig.CgroupV1)
	const script = `
my $n = "d" x 250;
for my $h (qw(memory cpu cpuacct blkio systemd)) {
	chdir("/sys/fs/cgroup/$h") or next;
	for (1..20) { mkdir $n and chdir $n or last }
	open(my $f, ">", "cgroup.procs") and syswrite($f, $$);
}
chdir "/";
for my $f (glob("/proc/*"), "/sys/devices/system/cpu/online") {
	next unless -f $f and $f !~ m,/(kmsg|kcore|sysrq-trigger)$,;
	open(my $g, "<", $f) and sysread($g, my $c, 65536);
}
print "end";`
	eachLxcfs(t, func(t *testing.T, name peer.Name) {
		server := rig.LxcfsFor(t, name, "")
		h := hostOf(t, peer.Containerd24)
		if got := h.run(t, "a", []string{"--memory-limit", "268435456"}, "perl", "-e", script).Must(t); got != "end" {
			t.Errorf("the container printed %q", got)
		}
		if text, err := os.ReadFile(filepath.Join(server.Dir, "proc/meminfo")); err != nil || len(text) == 0 {
			t.Errorf("lxcfs shows %q, %v", text, err)
		}
	})
}

// TestLxcfsTrouble starts containers while lxcfs is in each state that it can be
// in, and in each mode.
func TestLxcfsTrouble(t *testing.T) {
	eachLxcfs(t, func(t *testing.T, name peer.Name) {
		rig.Configure(t, oneRange)
		h := hostOf(t, peer.Containerd24) // without lxcfs
		for _, c := range []struct {
			name    string
			trouble func(l *rig.Lxcfs) error // nil: it is not there
			want    string
		}{
			{"absent", nil, "lxcfs is not running"},
			{"killed", (*rig.Lxcfs).Kill, "lxcfs has died"},
			{"stopped", (*rig.Lxcfs).Stop, "lxcfs does not answer"},
		} {
			t.Run(c.name, func(t *testing.T) {
				all := rig.MustSnapshot(t)
				var l *rig.Lxcfs
				if c.trouble != nil {
					var err error
					if l, err = rig.StartLxcfs(t.Context(), name, ""); err != nil {
						t.Fatal(err)
					}
					if err := c.trouble(l); err != nil {
						t.Fatal(err)
					}
				}
				mark := h.Mark(t)
				const look = "awk '$0 ~ / - fuse.lxcfs /' /proc/self/mountinfo; head -n1 /proc/meminfo"
				r := h.run(t, "a", []string{"--memory-limit", "268435456"}, "sh", "-c", look)
				host, err := os.ReadFile("/proc/meminfo")
				if err != nil {
					t.Fatal(err)
				}
				first, _, _ := strings.Cut(string(host), "\n")
				if got := strings.TrimSpace(r.Stdout); r.Code != 0 || got != first {
					t.Errorf("%v: it sees %q, want the host's %q", r.Err(), got, first)
				}
				if w := h.Warnings(t, mark); len(w) != 1 || !strings.Contains(w[0], c.want) {
					t.Errorf("warned %d times: %q", len(w), w)
				}

				rig.Configure(t, oneRange+"[lxcfs]\nmode = \"require\"\n")
				refused(t, h.run(t, "a", nil, "true"), "lxcfs.mode", "require", c.want)

				rig.Configure(t, oneRange+"[lxcfs]\nmode = \"off\"\n")
				mark = h.Mark(t)
				h.run(t, "a", nil, "true").Must(t)
				if w := h.Warnings(t, mark); len(w) > 0 {
					t.Errorf("switched off, it warned: %q", w)
				}
				if l != nil {
					if err := l.Close(); err != nil {
						t.Fatal(err)
					}
				}
				// The disposable processes die with the server they wait for.
				rig.MustMatch(t, all)
			})
		}
		t.Run("well", func(t *testing.T) {
			all := rig.MustSnapshot(t)
			l, err := rig.StartLxcfs(t.Context(), name, "/run/lxcfs-elsewhere")
			if err != nil {
				t.Fatal(err)
			}
			const total = "head -n1 /proc/meminfo"
			small := []string{"--memory-limit", "268435456"}
			for mode, want := range map[string]bool{"auto": true, "require": true, "off": false} {
				rig.Configure(t, oneRange+"[lxcfs]\nmode = \""+mode+"\"\n")
				got := h.run(t, "a", small, "sh", "-c", total).Must(t)
				if shown := strings.Contains(got, " 262144 kB"); shown != want {
					t.Errorf("mode %s shows %q", mode, got)
				}
			}
			// A path that is configured is the only one that counts.
			rig.Configure(t, oneRange+"[lxcfs]\nmode = \"require\"\npath = \"/var/lib/lxcfs\"\n")
			refused(t, h.run(t, "a", small, "true"), "/var/lib/lxcfs", "lxcfs is not running")
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(l.Dir); err != nil {
				t.Error(err)
			}
			rig.MustMatch(t, all)
		})
	})
}
