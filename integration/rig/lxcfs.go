// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
)

// Lxcfs is a running lxcfs.
type Lxcfs struct {
	// Dir is where it is mounted.
	Dir    string
	daemon *daemon
}

// LxcfsFor starts an lxcfs for one test.
func LxcfsFor(t testing.TB, name peer.Name, dir string) *Lxcfs {
	t.Helper()
	l, err := StartLxcfs(t.Context(), name, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// StartLxcfs starts an lxcfs, on /var/lib/lxcfs if dir is empty, with load
// averages, CPU views and pidfds, and returns when it serves files.
func StartLxcfs(ctx context.Context, name peer.Name, dir string) (*Lxcfs, error) {
	if dir == "" {
		dir = "/var/lib/lxcfs"
	}
	p, err := peer.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make lxcfs directory: %w", err)
	}
	n := nodes.Add(1)
	base := filepath.Join(Dir(), fmt.Sprintf("l%d", n))
	l := &Lxcfs{Dir: dir}
	// Each has a run file of its own, as it is locked. -f keeps it in the
	// foreground.
	l.daemon, err = startDaemon(base+".log", nil, p.Program("lxcfs"),
		"-f", "-l", "--enable-cfs", "--enable-pidfd", "-p", base+".pid", dir)
	if err != nil {
		return nil, err
	}
	err = l.daemon.await(ctx, func() error {
		mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
		if err != nil {
			return fmt.Errorf("read mounts: %w", err)
		}
		if !slices.ContainsFunc(mounts, func(m *mountinfo.Info) bool { return m.FSType == "fuse.lxcfs" }) {
			return fmt.Errorf("%q is not mounted", dir)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "proc/uptime")); err != nil || len(text) == 0 {
			return fmt.Errorf("read uptime: %q, %w", text, err)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Pid is lxcfs's process.
func (l *Lxcfs) Pid() int { return l.daemon.command.Process.Pid }

// Kill ends it without warning; its mount stays and answers ENOTCONN.
func (l *Lxcfs) Kill() error { return l.daemon.stop(unix.SIGKILL) }

// Stop makes it hang, which it does when Stop returns: whoever reads its files
// waits.
func (l *Lxcfs) Stop() error {
	if err := l.daemon.signal(unix.SIGSTOP); err != nil {
		return err
	}
	// A thread stops when it is scheduled, and may answer a request before.
	var stopped bool
	var err error
	Within(patience, func() bool {
		stopped, err = l.stopped()
		return stopped || err != nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("stop lxcfs: %w", err)
	case !stopped:
		return fmt.Errorf("stop lxcfs: not stopped after %s", Patiently(patience))
	}
	return nil
}

// stopped tells whether every thread has stopped (state T of proc_pid_stat(5)).
func (l *Lxcfs) stopped() (bool, error) {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", l.Pid()))
	if err != nil {
		return false, err
	}
	if len(stats) == 0 {
		return false, errors.New("it has ended")
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // a thread that has ended
		}
		if err != nil {
			return false, err
		}
		// The state follows the name, which is in parentheses.
		if _, after, ok := strings.Cut(string(text), ") "); !ok || !strings.HasPrefix(after, "T") {
			return false, nil
		}
	}
	return true, nil
}

// Cont lets it go on after Stop.
func (l *Lxcfs) Cont() error { return l.daemon.signal(unix.SIGCONT) }

// Close ends it in whatever state it is, and removes its mounts.
func (l *Lxcfs) Close() error {
	if err := l.Kill(); err != nil {
		return err
	}
	for {
		err := unix.Unmount(l.Dir, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) {
			return nil // not mounted any more
		}
		if err != nil {
			return fmt.Errorf("unmount lxcfs: %w", err)
		}
	}
}
