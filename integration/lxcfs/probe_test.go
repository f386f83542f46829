// SPDX-License-Identifier: Apache-2.0

// Package lxcfs_test probes real lxcfs servers in the states that they can be in.
package lxcfs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

func TestMain(m *testing.M) {
	lxcfs.MaybeChild()
	os.Exit(rig.Main(m))
}

// patient outlasts a busy machine; hasty is for servers that will not answer.
const (
	patient = 20_000
	hasty   = 300
)

// versions runs a test with each lxcfs that Debian has.
func versions(t *testing.T, test func(t *testing.T, name peer.Name)) {
	for _, name := range []peer.Name{peer.Lxcfs5, peer.Lxcfs6} {
		t.Run(string(name), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE)
			test(t, name)
		})
	}
}

func probe(t *testing.T, path string, ms uint32) (lxcfs.Result, time.Duration, error) {
	t.Helper()
	start := time.Now()
	l := lxcfs.StartProbe(t.Context(), config.LXCFS{Mode: config.LXCFSAuto, Path: path, TimeoutMS: ms})
	t.Cleanup(l.Close)
	mounted := l.Mounted()
	served, err := l.Result()
	// Whether it is dead or hangs, it is there.
	if !mounted && !errors.Is(err, lxcfs.ErrAbsent) {
		t.Errorf("not mounted, and then %v", err)
	}
	return served, time.Since(start), err
}

// soon is less than anything that waits for the server, which never ends.
func soon(t *testing.T, took time.Duration) {
	t.Helper()
	if took > hasty*time.Millisecond+30*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestServed(t *testing.T) {
	versions(t, func(t *testing.T, name peer.Name) {
		server := rig.LxcfsFor(t, name, filepath.Join(t.TempDir(), "l"))
		served, took, err := probe(t, "", patient)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d files in %v", len(served.Files), took)
		if served.Root != server.Dir || len(served.Skipped) > 0 {
			t.Errorf("root %q, skipped %v", served.Root, served.Skipped)
		}
		found := map[string]bool{}
		for _, f := range served.Files {
			found[f.Name] = true
			text, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Mount.Fd()))
			if err != nil {
				t.Errorf("%s: %v", f.Name, err)
			}
			if f.Name == "proc/meminfo" && !strings.HasPrefix(string(text), "MemTotal:") {
				t.Errorf("meminfo is %q", text)
			}
		}
		for _, want := range []string{
			"proc/meminfo", "proc/cpuinfo", "proc/stat", "proc/uptime", "proc/loadavg",
			"proc/swaps", "sys/devices/system/cpu/online",
		} {
			if !found[want] {
				t.Errorf("%s is missing", want)
			}
		}
	})
}

func TestKilled(t *testing.T) {
	versions(t, func(t *testing.T, name peer.Name) {
		server := rig.LxcfsFor(t, name, filepath.Join(t.TempDir(), "l"))
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"", server.Dir} {
			_, took, err := probe(t, path, patient)
			if !errors.Is(err, lxcfs.ErrDead) || !strings.Contains(err.Error(), server.Dir) {
				t.Errorf("path %q: %v", path, err)
			}
			soon(t, took)
		}
		// Another one elsewhere is found although the dead one is mounted, and
		// also if the dead one is the newer mount.
		other := rig.LxcfsFor(t, name, filepath.Join(t.TempDir(), "other"))
		served, _, err := probe(t, "", patient)
		if err != nil || served.Root != other.Dir {
			t.Errorf("beside a dead one: %q %v", served.Root, err)
		}
		third := rig.LxcfsFor(t, name, filepath.Join(t.TempDir(), "third"))
		if err := third.Kill(); err != nil {
			t.Fatal(err)
		}
		served, _, err = probe(t, "", patient)
		if err != nil || served.Root != other.Dir {
			t.Errorf("below a dead one: %q %v", served.Root, err)
		}
	})
}

func TestStopped(t *testing.T) {
	versions(t, func(t *testing.T, name peer.Name) {
		server := rig.LxcfsFor(t, name, filepath.Join(t.TempDir(), "l"))
		// Fetched while it was well, attached while it hangs.
		served, _, err := probe(t, "", patient)
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Stop(); err != nil {
			t.Fatal(err)
		}
		_, took, err := probe(t, server.Dir, hasty)
		if !errors.Is(err, lxcfs.ErrHung) || !strings.Contains(err.Error(), "lxcfs.timeout_ms") {
			t.Errorf("%v", err)
		}
		soon(t, took)

		target := filepath.Join(t.TempDir(), "target")
		if err := os.WriteFile(target, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		attached := make(chan error, 1)
		go func() {
			attached <- unix.MoveMount(int(served.Files[0].Mount.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
		}()
		select {
		case err := <-attached:
			if err != nil {
				t.Errorf("attach: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("attaching waits for the server")
		}

		if err := server.Cont(); err != nil {
			t.Fatal(err)
		}
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		if _, _, err := probe(t, server.Dir, patient); err != nil {
			t.Errorf("after it goes on: %v", err)
		}
		noChildren(t)
	})
}

func TestCloseDoesNotWaitForTheServer(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	server := rig.LxcfsFor(t, peer.Lxcfs5, filepath.Join(t.TempDir(), "l"))
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	l := lxcfs.StartProbe(t.Context(), config.LXCFS{Mode: config.LXCFSAuto, TimeoutMS: 60_000})
	time.Sleep(100 * time.Millisecond) // it hangs by now
	start := time.Now()
	l.Close()
	soon(t, time.Since(start))
	if err := server.Cont(); err != nil {
		t.Fatal(err)
	}
	noChildren(t)
}

// TestLxcfs7NeedsCgroupV2 is here since Debian's lxcfs will be 7, on hosts that still
// boot with version 1.
func TestLxcfs7NeedsCgroupV2(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE, rig.CgroupV1)
	server := rig.LxcfsFor(t, peer.Lxcfs7, filepath.Join(t.TempDir(), "l"))
	_, _, err := probe(t, server.Dir, patient)
	if err == nil || !strings.Contains(err.Error(), "boot with cgroup version 2") {
		t.Errorf("%v", err)
	}
}

func TestAbsent(t *testing.T) {
	rig.Require(t, rig.Root)
	dir := t.TempDir()
	for _, path := range []string{"", dir, "/proc"} {
		_, took, err := probe(t, path, patient)
		if !errors.Is(err, lxcfs.ErrAbsent) {
			t.Errorf("path %q: %v", path, err)
		}
		soon(t, took)
	}
	// A mount that is covered by another one.
	rig.Require(t, rig.FUSE)
	server := rig.LxcfsFor(t, peer.Lxcfs5, filepath.Join(t.TempDir(), "l"))
	if err := unix.Mount("none", server.Dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(server.Dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if _, _, err := probe(t, "", patient); !errors.Is(err, lxcfs.ErrAbsent) || !strings.Contains(err.Error(), "hidden") {
		t.Errorf("%v", err)
	}
}

// noChildren waits for the disposable processes to be gone.
func noChildren(t *testing.T) {
	t.Helper()
	left := 0
	gone := rig.Within(30*time.Second, func() bool {
		left = 0
		entries, err := os.ReadDir("/proc")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if _, err := strconv.Atoi(e.Name()); err != nil {
				continue
			}
			if line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")); err == nil && strings.HasPrefix(string(line), "isolate-lxcfs-probe") {
				left++
			}
		}
		return left == 0
	})
	if !gone {
		t.Errorf("%d child processes are left", left)
	}
}
