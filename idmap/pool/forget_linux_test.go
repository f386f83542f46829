// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
)

// populated makes a group that has a process.
func populated(t *testing.T) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/pids"} {
		if _, err := os.Stat(root + "/cgroup.procs"); err != nil {
			continue
		}
		dir := fmt.Sprintf("%s/isolate-forget-%d", root, os.Getpid())
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Rmdir(dir); err != nil {
				t.Error(err)
			}
		})
		if err := os.WriteFile(dir+"/cgroup.procs", fmt.Append(nil, child(t, 0).Process.Pid), 0); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	t.Fatal("no cgroup hierarchy found")
	return ""
}

// mapped starts a process that has the ids of a span.
func mapped(t *testing.T, span idmap.Span) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	ids := []syscall.SysProcIDMap{{HostID: int(span.First), Size: int(span.Size)}}
	cmd.SysProcAttr = &unix.SysProcAttr{
		Pdeathsig: unix.SIGKILL, Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Credential: &syscall.Credential{},
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
}

// join gives another container a part in a range, and kills its shim.
func join(t *testing.T, p *Pool, m idmap.Mapping, owner Owner) {
	t.Helper()
	l, err := p.Share(t.Context(), m, owner)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
}

// TestForget: what is left of a container whose shim was killed, and of which a later one
// has the cgroups.
func TestForget(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to map ids and make cgroups")
	}
	group := populated(t)
	ended := Owner{Namespace: "test", ID: "ended", Cgroups: []string{group}}
	other := Owner{Namespace: "test", ID: "other"}
	init := child(t, 0)
	for i, c := range []struct {
		name    string
		prepare func(t *testing.T, p *Pool, l *Lease)
		forget  Owner
		cleared bool
		kept    bool // by something else
	}{
		{name: "alone", forget: ended, cleared: true},
		{name: "another one's", forget: other},
		{name: "another namespace's", forget: Owner{Namespace: "k8s.io", ID: "ended"}},
		{name: "first process that lives", forget: ended, prepare: func(t *testing.T, _ *Pool, l *Lease) {
			if err := l.Bound(init.Process.Pid); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "first process that has ended", forget: ended, cleared: true, prepare: func(t *testing.T, _ *Pool, l *Lease) {
			first := child(t, 0)
			if err := l.Bound(first.Process.Pid); err != nil {
				t.Fatal(err)
			}
			kill(first)
		}},
		{name: "process with its ids", forget: ended, cleared: true, kept: true, prepare: func(t *testing.T, _ *Pool, l *Lease) { mapped(t, l.Span) }},
		{name: "part of another one", forget: ended, prepare: func(t *testing.T, p *Pool, l *Lease) {
			join(t, p, l.Mapping(), Owner{Namespace: "test", ID: "other", Cgroups: []string{group}})
		}},
		{name: "part in another one's", forget: other, prepare: func(t *testing.T, p *Pool, l *Lease) { join(t, p, l.Mapping(), other) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// Ids that no other test has: one of the cases has a process with them.
			p := open(t, t.TempDir(), idmap.Span{First: 1<<28 + idmap.HostID(i)*slotSize, Size: slotSize})
			l := acquire(t, p, ended, slotSize)
			if c.prepare != nil {
				c.prepare(t, p, l)
			}
			if err := Forget(t.Context(), p.dir, c.forget, l.Mapping()); err != nil {
				t.Fatal(err)
			}
			if stat, err := l.files[0].Stat(); err != nil || stat.Size() == 0 {
				t.Fatalf("a range with a holder is forgotten: %v", err)
			}
			if err := l.close(); err != nil { // the shim is killed
				t.Fatal(err)
			}
			if _, err := p.AcquirePreferred(t.Context(), other, slotSize, 0); !errors.Is(err, errExhausted) {
				t.Fatalf("before: %v", err)
			}
			if err := Forget(t.Context(), p.dir, c.forget, l.Mapping()); err != nil {
				t.Fatal(err)
			}
			if stat, err := os.Stat(filepath.Join(p.dir, slotName(uint32(l.First)/slotSize))); err != nil || (stat.Size() == 0) != c.cleared {
				t.Errorf("%d bytes are left, %v", stat.Size(), err)
			}
			next, err := p.AcquirePreferred(t.Context(), other, slotSize, 0)
			switch free := c.cleared && !c.kept; {
			case err == nil:
				err = next.close()
				if !free {
					err = errors.New("it is given out")
				}
			case !free && errors.Is(err, errExhausted):
				err = nil
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}
