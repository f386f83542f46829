// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

func TestMain(m *testing.M) { os.Exit(testmounts.RunCgroup2(m)) }

// each runs a test in a new group of version 2, and of version 1 with the controller.
func each(t *testing.T, controller string, test func(t *testing.T, dir string)) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		t.Fatal(err)
	}
	tried := map[string]bool{}
	for _, m := range mounts {
		v1 := m.FSType == "cgroup"
		if tried[m.FSType] || v1 && !slices.Contains(strings.Split(m.VFSOptions, ","), controller) {
			continue
		}
		tried[m.FSType] = true
		t.Run(m.FSType, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(m.Mountpoint, fmt.Sprintf("isolate-%s-%d", strings.ReplaceAll(t.Name(), "/", "-"), os.Getpid()))
			mkdir(t, dir)
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				if err := Remove(ctx, dir); err != nil {
					t.Errorf("left behind: %v", err)
				}
			})
			test(t, dir)
		})
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// deep makes groups in each other, and returns the lowest one.
func deep(t *testing.T, dir, name string, levels int) *os.File {
	t.Helper()
	here, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range levels {
		if err := unix.Mkdirat(int(here.Fd()), name, 0o755); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Openat(int(here.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		here.Close()
		if err != nil {
			t.Fatal(err)
		}
		here = os.NewFile(uintptr(fd), name)
	}
	t.Cleanup(func() { here.Close() })
	return here
}

// sleeper starts a process in a group.
func sleeper(t *testing.T, group *os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }() //nolint:errcheck // killed
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill() //nolint:errcheck // ended, perhaps
		<-ended
	})
	if err := write(int(group.Fd()), ".", "cgroup.procs", fmt.Sprint(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func within(t *testing.T, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// Names of 200 bytes in 40 levels are twice as long as PATH_MAX.
func TestGroupsDeeperThanPathMax(t *testing.T) {
	t.Parallel()
	each(t, "pids", func(t *testing.T, dir string) {
		lowest := deep(t, dir, strings.Repeat("d", 200), 40)
		mkdir(t, filepath.Join(dir, "beside"))
		if some, err := Populated(t.Context(), dir); some || err != nil {
			t.Errorf("empty: %v, %v", some, err)
		}
		cmd := sleeper(t, lowest)
		if some, err := Populated(t.Context(), dir); !some || err != nil {
			t.Errorf("a process in the lowest group: %v, %v", some, err)
		}
		if got, err := Processes(t.Context(), dir); err != nil || !slices.Equal(got, []int{cmd.Process.Pid}) {
			t.Errorf("processes %v, %v; want %d", got, err, cmd.Process.Pid)
		}
		var busy *BusyError
		if err := Remove(t.Context(), dir); !errors.As(err, &busy) || !errors.Is(err, unix.EBUSY) || !slices.Equal(busy.Processes, []int{cmd.Process.Pid}) {
			t.Errorf("removing a group in use: %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "beside")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a group that nobody uses stays: %v", err)
		}
		cmd.Process.Kill() //nolint:errcheck // sleeper waits for it
		for errors.As(Remove(t.Context(), dir), &busy) {
			time.Sleep(time.Millisecond)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("not removed: %v", err)
		}
		if _, err := Processes(t.Context(), dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("processes of a group that is gone: %v", err)
		}
		if err := errors.Join(Remove(t.Context(), dir), Thaw(t.Context(), dir)); err != nil {
			t.Errorf("a group that is gone: %v", err)
		}
	})
}

// The number of open files does not grow with the depth, and the time not with its
// square.
func TestManyGroups(t *testing.T) {
	t.Parallel()
	each(t, "pids", func(t *testing.T, dir string) {
		deep(t, dir, "d", 1000).Close()
		for i := range 1000 {
			mkdir(t, filepath.Join(dir, fmt.Sprint("w", i)))
		}
		var seen, open int
		top, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer top.Close()
		w := visitor{enter: func(at int, _ string) error { seen++; open = max(open, at); return nil }}
		if err := walk(t.Context(), top, w); err != nil || seen != 2001 {
			t.Errorf("%d groups, %v", seen, err)
		}
		if open > 200 {
			t.Errorf("descriptor %d was in use", open)
		}
		start := time.Now()
		if err := Remove(within(t, time.Minute), dir); err != nil {
			t.Error(err)
		}
		t.Log("removed in", time.Since(start))
	})
}

func TestWalkEndsWithItsContext(t *testing.T) {
	t.Parallel()
	each(t, "pids", func(t *testing.T, dir string) {
		deep(t, dir, "d", 3)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := Remove(ctx, dir); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// A group that is removed while the walk stands in it does not end the walk.
func TestGroupsRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	each(t, "pids", func(t *testing.T, dir string) {
		for _, name := range []string{"a", "a/b", "a/b/c", "z", "z/y"} {
			mkdir(t, filepath.Join(dir, name))
		}
		top, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer top.Close()
		var entered []string
		err = walk(t.Context(), top, visitor{enter: func(_ int, name string) error {
			entered = append(entered, name)
			if name == "c" {
				return errors.Join(os.Remove(filepath.Join(dir, "a/b/c")), os.Remove(filepath.Join(dir, "a/b")), os.Remove(filepath.Join(dir, "a")))
			}
			return nil
		}})
		slices.Sort(entered)
		if want := []string{".", "a", "b", "c", "y", "z"}; err != nil || !slices.Equal(entered, want) {
			t.Errorf("entered %q, %v; want %q", entered, err, want)
		}
	})
}

func TestRemoveBelowLeavesGroupsOfOthers(t *testing.T) {
	t.Parallel()
	each(t, "pids", func(t *testing.T, dir string) {
		for name, uid := range map[string]int{"ours": 1700000000, "theirs": 0} {
			mkdir(t, filepath.Join(dir, name))
			mkdir(t, filepath.Join(dir, name, "below"))
			for _, d := range []string{name, name + "/below"} {
				if err := os.Chown(filepath.Join(dir, d), uid, uid); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := RemoveBelow(t.Context(), dir, func(uid uint32) bool { return uid == 1700000000 }); err != nil {
			t.Error(err)
		}
		for name, want := range map[string]bool{"ours": false, "theirs/below": true, ".": true} {
			if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// Only groups below the root of a cgroup mount are touched.
func TestOnlyGroups(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mkdir(t, filepath.Join(dir, "a"))
	roots := []string{dir}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		roots = append(roots, m.Mountpoint)
	}
	for _, root := range roots {
		for what, err := range map[string]error{
			"remove": Remove(t.Context(), root),
			"thaw":   Thaw(t.Context(), root),
			"below":  RemoveBelow(t.Context(), root, func(uint32) bool { return true }),
		} {
			if !errors.Is(err, ErrNotGroup) {
				t.Errorf("%s %s: %v", what, root, err)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); err != nil {
		t.Error(err)
	}
}

// A process that a group holds frozen is not ended by SIGKILL on version 1.
func TestThaw(t *testing.T) {
	t.Parallel()
	each(t, "freezer", func(t *testing.T, dir string) {
		lowest := deep(t, dir, "f", 4)
		cmd := sleeper(t, lowest)
		file, text := "freezer.state", "FROZEN"
		if _, err := os.Stat(filepath.Join(dir, "cgroup.freeze")); err == nil {
			file, text = "cgroup.freeze", "1"
		}
		for _, group := range []string{".", "f/f", "f/f/f/f"} { // at several levels
			if err := os.WriteFile(filepath.Join(dir, group, file), []byte(text), 0); err != nil {
				t.Fatal(err)
			}
		}
		// A group of version 2 is frozen when its last process is.
		for start := time.Now(); !Frozen(dir); time.Sleep(time.Millisecond) {
			if time.Since(start) > time.Minute {
				t.Fatal("it is not seen to be frozen")
			}
		}
		p, err := proc.Open(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if err := p.Signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if file == "freezer.state" {
			if ended, err := p.Ended(100 * time.Millisecond); ended || err != nil {
				t.Errorf("the kernel ends frozen processes by itself: %v", err)
			}
		}
		if err := Thaw(t.Context(), dir); err != nil {
			t.Error(err)
		}
		if file == "freezer.state" && Frozen(dir) {
			t.Error("it is still taken for frozen")
		}
		if ended, err := p.Ended(time.Minute); !ended || err != nil {
			t.Error("it lives", err)
		}
	})
}

func TestDirs(t *testing.T) {
	t.Parallel()
	got, err := dirs(Mountpoint, "/a/b")
	if err != nil || len(got) == 0 {
		t.Fatal(got, err)
	}
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	defer mounts.Close()
	var want []string
	for s := bufio.NewScanner(mounts); s.Scan(); {
		f := strings.Fields(s.Text())
		if (f[2] == "cgroup" || f[2] == "cgroup2") && (f[1] == Mountpoint || filepath.Dir(f[1]) == Mountpoint) {
			want = append(want, f[1]+"/a/b")
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// A directory that is no hierarchy is none.
	dir := t.TempDir()
	mkdir(t, filepath.Join(dir, "leftover"))
	if got, err := dirs(dir, "/a"); err != nil || len(got) != 0 {
		t.Errorf("a plain directory counts: %q, %v", got, err)
	}
}
