// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/testprogram"
	"github.com/isolate-shim/isolate/shim/record"
)

// faulty is an OCI runtime that fails on demand.
type faulty struct {
	path string // of the runtime
	dir  string // where the faults are named
}

// The faults. The late ones come after the real runtime has done its work.
const (
	fails     = "fail"
	hangs     = "hang"
	failsLate = "late-fail"
	hangsLate = "late-hang"
	// garbles is to succeed with garbage instead of doing anything.
	garbles = "garble"
	// forks is to end as soon as the container has a process, and before the runtime
	// has written down that there is one.
	forks = "fork"
	// waits is to go on when the fault has ended; a file "waiting" tells that it waits.
	waits = "wait"
)

// hung is what a runtime that hangs looks like among the processes.
const hung = "sleep 77777"

// faultyRuntime wraps a runtime. It logs as the real ones do, since that is where
// containerd looks for the reason.
func faultyRuntime(t testing.TB, name peer.Name) faulty {
	t.Helper()
	p, err := peer.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	f := faulty{dir: t.TempDir()}
	f.path = filepath.Join(f.dir, "runtime")
	const script = `#!/bin/sh
for word; do
	case $flag in --log) log=$word ;; esac
	case $word in create | start | delete | kill | state | exec | features | --version) verb=$word; break ;; esac
	flag=$word
done
fail() {
	printf '{"level":"error","msg":"injected failure of %%s"}\n' "$verb" >>"${log:-/dev/null}"
	exit 1
}
echo "$verb $*" >>%[2]s/calls
case $(cat %[2]s/fault-"$verb" 2>/dev/null) in
fail) fail ;;
hang) exec %[3]s ;;
garble) printf '{"pid":-1,"status":\001' ; exit 0 ;;
fork)
	for id; do :; done
	%[1]s "$@" &
	pid=
	until [ "$pid" ]; do
		for group in /sys/fs/cgroup/memory/*/"$id" /sys/fs/cgroup/*/"$id"; do
			[ -e "$group"/cgroup.procs ] && read -r pid <"$group"/cgroup.procs
		done
		kill -0 $! || exit 1
	done
	kill -STOP "$pid"
	kill -KILL $!
	fail
	;;
wait)
	: >%[2]s/waiting
	while [ -e %[2]s/fault-"$verb" ]; do sleep 0.02; done
	;;
late-fail) %[1]s "$@"; fail ;;
late-hang) %[1]s "$@"; exec %[3]s ;;
esac
exec %[1]s "$@"
`
	text := fmt.Sprintf(script, p.Program(p.Programs()[0]), f.dir, hung)
	if err := testprogram.Write(f.path, text); err != nil {
		t.Fatal(err)
	}
	return f
}

// config is the configuration that names it.
func (f faulty) config() string { return fmt.Sprintf("[runtime]\nbinary = %q\n", f.path) }

// inject makes a command of the runtime fail until the test ends.
func (f faulty) inject(t testing.TB, verb, fault string) {
	t.Helper()
	file := filepath.Join(f.dir, "fault-"+verb)
	if err := os.WriteFile(file, []byte(fault), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.heal(t, verb) })
}

// heal ends a fault.
func (f faulty) heal(t testing.TB, verb string) {
	t.Helper()
	if err := os.Remove(filepath.Join(f.dir, "fault-"+verb)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// calls returns the commands that were run since the last time.
func (f faulty) calls(t testing.TB) string {
	t.Helper()
	file := filepath.Join(f.dir, "calls")
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	var verbs []string
	for line := range strings.Lines(string(text)) {
		verb, _, _ := strings.Cut(line, " ")
		verbs = append(verbs, verb)
	}
	return strings.Join(verbs, " ")
}

// hungPid finds a process by its command line.
func hungPid(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " ") == hung {
			if pid, err := strconv.Atoi(e.Name()); err == nil {
				return pid
			}
		}
	}
	return 0
}

// refused demands that a container did not run, for reasons that are told.
func refused(t testing.TB, r rig.Result, reasons ...string) {
	t.Helper()
	if r.Code == 0 {
		t.Errorf("it ran, and printed %q", r.Stdout)
	}
	for _, reason := range reasons {
		if !strings.Contains(r.Stderr, reason) {
			t.Errorf("%q is not in %q", reason, r.Stderr)
		}
	}
}

// TestFailedCreate makes creating a container fail at each step. The error names
// the cause, nothing is left, and the only range of ids is free for the next.
func TestFailedCreate(t *testing.T) {
	rig.Require(t, rig.Root)
	f := faultyRuntime(t, peer.Runc15)
	rig.Configure(t, oneRange+f.config())
	h := hostOf(t, peer.Containerd24)
	volume := t.TempDir()
	mount := func(src string) []string {
		return []string{"--mount", "type=bind,src=" + src + ",dst=/volume,options=rbind:ro"}
	}
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T)
		flags   []string
		argv    []string
		want    []string
	}{
		{
			name: "runtime fails to create", prepare: func(t *testing.T) { f.inject(t, "create", fails) },
			want: []string{"injected failure of create"},
		},
		{
			name: "runtime creates and fails", prepare: func(t *testing.T) { f.inject(t, "create", failsLate) },
			want: []string{"injected failure of create"},
		},
		{
			name: "runtime fails to create and to delete",
			prepare: func(t *testing.T) {
				f.inject(t, "create", fails)
				f.inject(t, "delete", fails)
			},
			want: []string{"injected failure of create"},
		},
		{
			name: "runtime fails to start", prepare: func(t *testing.T) { f.inject(t, "start", fails) },
			want: []string{"injected failure of start"},
		},
		{
			name: "runtime starts and fails", prepare: func(t *testing.T) { f.inject(t, "start", failsLate) },
			want: []string{"injected failure of start"},
		},
		{name: "no such program in the image", argv: []string{"/nope"}, want: []string{"/nope"}},
		{
			name: "no such runtime", prepare: func(t *testing.T) { rig.Configure(t, oneRange+"[runtime]\nbinary = \"/nope/runc\"\n") },
			want: []string{"/nope/runc", "OCI runtime not found"},
		},
		{
			name: "unknown key", prepare: func(t *testing.T) { rig.Configure(t, "shiny = true\n"+oneRange) },
			want: []string{"/etc/isolate/config.toml:1", "shiny", "unknown key"},
		},
		{
			name: "lxcfs required", prepare: func(t *testing.T) { rig.Configure(t, oneRange+f.config()+"[lxcfs]\nmode = \"require\"\n") },
			want: []string{"lxcfs.mode", "require", "lxcfs is not running", "lxcfs -l --enable-cfs --enable-pidfd"},
		},
		{name: "no such volume", flags: mount(filepath.Join(volume, "nope")), want: []string{filepath.Join(volume, "nope"), "no such file"}},
		{name: "no such volume after a good one", flags: append(mount(volume), "--mount", "type=bind,src=/nope,dst=/v2,options=rbind"), want: []string{"/nope"}},
		{name: "mount over a file of the image", flags: []string{"--mount", "type=bind,src=" + volume + ",dst=/etc/passwd,options=rbind"}, want: []string{"/etc/passwd"}},
		{name: "annotation nobody allowed", flags: []string{"--annotation", "io.containerd.isolate.lxcfs=off"}, want: []string{"io.containerd.isolate.lxcfs", "annotations.allow"}},
		{name: "host's processes", flags: []string{"--with-ns", "pid:/proc/1/ns/pid"}, want: []string{"pid"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := rig.MustSnapshot(t)
			t.Run("fail", func(t *testing.T) {
				if c.prepare != nil {
					c.prepare(t)
				}
				argv := c.argv
				if argv == nil {
					argv = []string{"echo", "it runs"}
				}
				r := h.run(t, "a", c.flags, argv...)
				refused(t, r, c.want...)
				if strings.Contains(r.Stderr, "clean up") {
					t.Errorf("the cause is not all that is told: %s", r.Stderr)
				}
			})
			rig.MustMatch(t, before)
			h.run(t, "next", mount(volume), "true").Must(t)
			rig.MustMatch(t, before)
		})
	}
}

// TestFailedDelete lets the runtime fail to delete. The next attempt succeeds; and if
// nothing was left to delete, it was none.
func TestFailedDelete(t *testing.T) {
	rig.Require(t, rig.Root)
	f := faultyRuntime(t, peer.Runc15)
	rig.Configure(t, oneRange+f.config())
	h := hostOf(t, peer.Containerd24)
	for _, fault := range []string{fails, failsLate} {
		t.Run(fault, func(t *testing.T) {
			before := rig.MustSnapshot(t)
			h.start(t, "a")
			f.inject(t, "delete", fault)
			r := h.Ctr(t.Context(), "tasks", "rm", "--force", "a")
			f.heal(t, "delete")
			if fault == fails {
				refused(t, r, "delete")
				h.Container("a").Remove(t)
			} else {
				r.Must(t)
				h.Ctr(t.Context(), "containers", "rm", "a").Must(t)
			}
			rig.MustMatch(t, before)
			h.run(t, "next", nil, "true").Must(t)
			rig.MustMatch(t, before)
		})
	}
}

// TestHangingRuntime lets the runtime hang at each step, and kills it there, or
// the shim that waits for it.
func TestHangingRuntime(t *testing.T) {
	rig.Require(t, rig.Root)
	f := faultyRuntime(t, peer.Runc15)
	rig.Configure(t, oneRange+f.config())
	h := hostOf(t, peer.Containerd24)
	for _, verb := range []string{"create", "start", "delete"} {
		for _, fault := range []string{hangs, hangsLate} {
			for _, victim := range []string{"runtime", "shim"} {
				t.Run(verb+"/"+fault+"/"+victim, func(t *testing.T) {
					before := rig.MustSnapshot(t)
					f.inject(t, verb, fault)
					done := make(chan rig.Result, 1)
					go func() { done <- h.run(t, "a", []string{"--null-io"}, "true") }()
					var pid int
					rig.Eventually(t, "hanging runtime", func() bool { pid = hungPid(t); return pid > 0 || len(done) > 0 })
					f.heal(t, verb)
					if victim == "shim" {
						pid = shimOf(t, "a")
					}
					if pid == 0 {
						t.Fatalf("nothing hangs: %+v", <-done)
					}
					if err := unix.Kill(pid, unix.SIGKILL); err != nil {
						t.Fatal(err)
					}
					if r := <-done; r.Code == 0 && verb != "delete" {
						t.Errorf("it ran: %+v", r)
					}
					// ctr removes what it has made, unless the task was there.
					h.Ctr(t.Context(), "tasks", "rm", "--force", "a")
					h.Ctr(t.Context(), "containers", "rm", "a")
					h.Ctr(t.Context(), "snapshots", "rm", "a")
					rig.MustMatch(t, before)
					h.run(t, "next", nil, "true").Must(t)
					rig.MustMatch(t, before)
				})
			}
		}
	}
}

// TestHangingFeatures asks a runtime that does not answer what it can do.
func TestHangingFeatures(t *testing.T) {
	rig.Require(t, rig.Root)
	f := faultyRuntime(t, peer.Runc15)
	rig.Configure(t, oneRange+f.config())
	h := hostOf(t, peer.Containerd24)
	before := rig.MustSnapshot(t)
	f.inject(t, "features", hangs)
	// What is known of a runtime is known until it changes.
	h.run(t, "a", nil, "true").Must(t)
	rig.MustMatch(t, before)
	later := time.Now().Add(time.Second)
	if err := os.Chtimes(f.path, later, later); err != nil {
		t.Fatal(err)
	}
	refused(t, h.run(t, "a", nil, "true"), f.path, "features")
	rig.MustMatch(t, before)
	f.heal(t, "features")
	h.run(t, "a", nil, "true").Must(t)
	rig.MustMatch(t, before)
}

// TestMissingLayer takes away parts of a snapshot between its making and its use.
func TestMissingLayer(t *testing.T) {
	rig.Require(t, rig.Root)
	rig.Configure(t, oneRange)
	h := hostOf(t, peer.Containerd24)
	for _, part := range []string{"lowerdir", "upperdir", "workdir"} {
		t.Run(part, func(t *testing.T) {
			before := rig.MustSnapshot(t)
			h.Ctr(t.Context(), "containers", "create", "--runtime", shimName, h.ref, "a", "true").Must(t)
			line := h.Ctr(t.Context(), "snapshots", "mounts", "/target", "a").Must(t)
			_, rest, ok := strings.Cut(line, part+"=")
			if !ok {
				t.Fatalf("no %s in %q", part, line)
			}
			dir, _, _ := strings.Cut(strings.FieldsFunc(rest, func(r rune) bool { return r == ',' || r == ' ' })[0], ":")
			if err := os.Rename(dir, dir+".away"); err != nil {
				t.Fatal(err)
			}
			refused(t, h.Ctr(t.Context(), "tasks", "start", "a"), dir, "no such file")
			if err := os.Rename(dir+".away", dir); err != nil {
				t.Fatal(err)
			}
			rig.MustMatch(t, before)
			h.Ctr(t.Context(), "tasks", "start", "a").Must(t)
			h.Container("a").Remove(t)
			rig.MustMatch(t, before)
		})
	}
}

// TestExhaustedPool starts one container more than there are ranges.
func TestExhaustedPool(t *testing.T) {
	rig.Require(t, rig.Root)
	rig.Configure(t, oneRange)
	h := hostOf(t, peer.Containerd24)
	before := rig.MustSnapshot(t)
	h.start(t, "a")
	one := rig.MustSnapshot(t)
	refused(t, h.run(t, "b", nil, "true"), "no free range of 65536 ids", "1 of 1", "ids.pool")
	rig.MustMatch(t, one)
	if got := h.exec(t, "a", "echo", "unharmed").Must(t); got != "unharmed" {
		t.Errorf("the first printed %q", got)
	}
	h.Container("a").Remove(t)
	h.run(t, "b", nil, "true").Must(t)
	rig.MustMatch(t, before)
}

// TestShimWithoutDescriptors: the shim of a group can open no file more. What fails names
// the limit, and what runs goes on.
func TestShimWithoutDescriptors(t *testing.T) {
	rig.Require(t, rig.Root)
	m := demoMachine(t, peer.Runc15, `annotations.allow = ["io.containerd.runc.v2.group"]`)
	group := []string{"--annotation", "io.containerd.runc.v2.group=a"}
	m.start(t, "a", group, "sleep", "86400")
	shim := shimOf(t, "a")
	flags := slices.Concat([]string{"run", "--rm", "--null-io", "--runtime", shimName}, group, []string{m.reference, "b", "true"})
	m.Ctr(t.Context(), flags...).Must(t)
	before := rig.MustSnapshot(t)
	var limit unix.Rlimit
	if err := unix.Prlimit(shim, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	// Four that are free are enough for containerd's connection, and not for a container.
	low := unix.Rlimit{Max: limit.Max}
	for free := 0; free < 4; low.Cur++ {
		if _, err := os.Lstat(fmt.Sprintf("/proc/%d/fd/%d", shim, low.Cur)); errors.Is(err, fs.ErrNotExist) {
			free++
		}
	}
	if err := unix.Prlimit(shim, unix.RLIMIT_NOFILE, &low, nil); err != nil {
		t.Fatal(err)
	}
	r := m.Ctr(t.Context(), flags...)
	if err := unix.Prlimit(shim, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	m.Ctr(t.Context(), "containers", "rm", "b")
	m.Ctr(t.Context(), "snapshots", "rm", "b")
	if r.Code == 0 || !strings.Contains(r.Stderr, "raise LimitNOFILE of containerd's unit") {
		t.Errorf("status %d, %q", r.Code, r.Stderr)
	}
	if got := m.exec(t, "a", nil, "echo", "here").Must(t); got != "here" {
		t.Errorf("printed %q", got)
	}
	rig.MustMatch(t, before)
	m.Ctr(t.Context(), flags...).Must(t)
	rig.MustMatch(t, before)
}

// TestDeleteIsKilled: somebody kills a shim, and also what containerd starts to clean up
// after it. containerd then knows no task and keeps the bundle, which is in the way of the
// next container with that id, until it is restarted and cleans up again.
func TestDeleteIsKilled(t *testing.T) {
	rig.Require(t, rig.Root)
	rig.Configure(t, oneRange)
	h := hostOf(t, peer.Containerd24)
	before := rig.MustSnapshot(t)
	h.start(t, "a")
	unlock, err := record.Lock(t.Context(), "default", "a")
	if err != nil {
		t.Fatal(err)
	}
	killShim(t, "a")
	rig.Eventually(t, "delete, which waits for the id, to be killed", func() bool {
		pid := shimProcess(t, "a", "delete")
		return pid != 0 && unix.Kill(pid, unix.SIGKILL) == nil
	})
	unlock()
	rig.Eventually(t, "containerd to forget the task", func() bool {
		return !strings.Contains(h.Ctr(t.Context(), "tasks", "ls").Must(t), "a ")
	})
	h.Ctr(t.Context(), "containers", "rm", "a").Must(t)
	refused(t, h.run(t, "a", nil, "true"), "file exists")
	h.Ctr(t.Context(), "containers", "rm", "a")
	h.Ctr(t.Context(), "snapshots", "rm", "a")
	if err := h.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	rig.MustMatch(t, before)
	h.run(t, "a", nil, "true").Must(t)
	rig.MustMatch(t, before)
}
