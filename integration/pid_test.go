// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// liar is an OCI runtime that makes what it is asked to, and reports another
// process than that it has made.
type liar struct {
	path string // of the runtime
	dir  string // where the lies are named
}

// Where it lies.
const (
	inPIDFile = "file"  // that of --pid-file
	inState   = "state" // its own, by which it kills
	inBoth    = "file state"
	thenHangs = "file state hang"
)

func lyingRuntime(t testing.TB, name peer.Name) liar {
	t.Helper()
	p, err := peer.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	l := liar{dir: t.TempDir()}
	l.path = filepath.Join(l.dir, "runtime")
	// The start time is that of the other process, by which runtimes know theirs.
	const script = `#!/bin/sh
for word; do
	case $flag in --pid-file) file=$word ;; --root) root=$word ;; --bundle) bundle=$word ;; esac
	case $word in create | exec | kill | delete) verb=$word ;; esac
	flag=$word
done
case $(cat %[2]s/spec-$verb 2>/dev/null) in
host) sed -i 's/,{"type":"user"[^}]*}//; s/{"type":"user"[^}]*},//; s/"[ug]idMappings":\[[^]]*\],//g' $bundle/config.json ;;
ids) sed -i 's/"size":65536/"size":65535/g; s/0 65535/0 65534/; s/"type":"user","path":"[^"]*"/"type":"user"/' $bundle/config.json ;;
esac
%[1]s "$@" || exit
for lie in $(cat %[2]s/lie-$verb 2>/dev/null); do
	read -r pid start <%[2]s/other
	case $lie in
	file) printf %%s $pid >$file ;;
	state)
		for state in $root/$word/state.json $root/$word/status; do
			[ -e $state ] && sed -i -E "s/(\"(init_process_)?pid\": *)[0-9]+/\1$pid/; s/(\"(init_process_|process-)start(-time)?\": *)[0-9]+/\1$start/" $state
		done ;;
	hang) exec %[3]s ;;
	esac
done
exit 0
`
	text := fmt.Sprintf(script, p.Program(p.Programs()[0]), l.dir, hung)
	if err := testprogram.Write(l.path, text); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l liar) config() string {
	return fmt.Sprintf("%s[runtime]\nbinary = %q\n[lxcfs]\nmode = \"off\"\n", oneRange, l.path)
}

// tell makes a command lie, or change the spec, until the test ends.
func (l liar) tell(t testing.TB, what, verb, text string) {
	t.Helper()
	file := filepath.Join(l.dir, what+"-"+verb)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
}

// bystander starts a process of the host, for the runtime to report.
func (l liar) bystander(t testing.TB) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "86399")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	// Start returns before the kernel has put its arguments in place, by which it is known.
	rig.Eventually(t, "the bystander", func() bool {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		return err == nil && string(line) == "sleep\x0086399\x00"
	})
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if err := os.WriteFile(filepath.Join(l.dir, "other"), fmt.Appendf(nil, "%d %s\n", cmd.Process.Pid, fields[19]), 0o644); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// unharmed demands that a process has got no signal.
func unharmed(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	var status unix.WaitStatus
	pid, err := unix.Wait4(cmd.Process.Pid, &status, unix.WNOHANG|unix.WUNTRACED|unix.WCONTINUED, nil)
	if pid != 0 || err != nil {
		t.Errorf("a process of the host was harmed: %#x, %v", status, err)
	}
}

// TestForeignPID lets the runtime report a process of the host as the container's:
// nobody does anything to it, neither when the container is refused nor in any
// clean-up.
func TestForeignPID(t *testing.T) {
	rig.Require(t, rig.Root)
	for _, name := range []peer.Name{peer.Runc15, peer.Crun121} {
		l := lyingRuntime(t, name)
		rig.Configure(t, l.config())
		h := hostOf(t, peer.Containerd24)
		for _, lie := range []string{inPIDFile, inState, inBoth} {
			t.Run(string(name)+"/create/"+lie, func(t *testing.T) {
				other := l.bystander(t)
				before := rig.MustSnapshot(t)
				t.Run("lie", func(t *testing.T) {
					l.tell(t, "lie", "create", lie)
					refused(t, h.run(t, "a", nil, "true"), "container \"a\"", l.path, fmt.Sprintf("process %d: nothing proves that it is the container's", other.Process.Pid))
				})
				rig.MustMatch(t, before)
				unharmed(t, other)
				h.run(t, "next", nil, "true").Must(t)
			})
		}
		t.Run(string(name)+"/create/shim is killed", func(t *testing.T) {
			other := l.bystander(t)
			before := rig.MustSnapshot(t)
			done := make(chan rig.Result, 1)
			t.Run("lie", func(lie *testing.T) {
				l.tell(lie, "lie", "create", thenHangs)
				// The client stays when the lie is over, until the shim is killed.
				go func() { done <- h.run(t, "a", []string{"--null-io"}, "true") }()
				rig.Eventually(lie, "hanging runtime", func() bool { return hungPid(t) > 0 || len(done) > 0 })
			})
			if hungPid(t) == 0 {
				t.Fatalf("nothing hangs: %+v", <-done)
			}
			killShim(t, "a")
			refused(t, <-done)
			h.Ctr(t.Context(), "tasks", "rm", "--force", "a")
			h.Ctr(t.Context(), "containers", "rm", "a")
			h.Ctr(t.Context(), "snapshots", "rm", "a")
			rig.MustMatch(t, before)
			unharmed(t, other)
			h.run(t, "next", nil, "true").Must(t)
		})
		t.Run(string(name)+"/exec", func(t *testing.T) {
			other := l.bystander(t)
			before := rig.MustSnapshot(t)
			h.start(t, "a")
			l.tell(t, "lie", "exec", inPIDFile)
			r := h.exec(t, "a", "sleep", "86398")
			refused(t, r, "container \"a\"", fmt.Sprintf("process %d: nothing proves that it is the container's", other.Process.Pid))
			h.Container("a").Remove(t)
			rig.MustMatch(t, before)
			unharmed(t, other)
		})
	}
}

// TestUnconfined lets the runtime make a container without user namespace, or with other
// ids: it is refused before its program runs.
func TestUnconfined(t *testing.T) {
	rig.Require(t, rig.Root)
	for _, name := range []peer.Name{peer.Runc15, peer.Crun121} {
		l := lyingRuntime(t, name)
		for _, nesting := range []string{"full", "off"} {
			rig.Configure(t, fmt.Sprintf("nesting = %q\ncaps = \"honor\"\n", nesting)+l.config())
			h := hostOf(t, peer.Containerd24)
			for what, want := range map[string]string{
				"host": "it is in the host's user namespace",
				"ids":  "it is in another user namespace",
			} {
				t.Run(fmt.Sprint(name, "/", nesting, "/", what), func(t *testing.T) {
					before := rig.MustSnapshot(t)
					t.Run("change", func(t *testing.T) {
						l.tell(t, "spec", "create", what)
						refused(t, h.run(t, "a", nil, "true"), "container \"a\"", want)
					})
					rig.MustMatch(t, before)
					h.run(t, "next", nil, "true").Must(t)
				})
			}
		}
	}
}
