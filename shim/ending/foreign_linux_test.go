// SPDX-License-Identifier: Apache-2.0

package ending

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/member"
)

func TestShowIn(t *testing.T) {
	t.Parallel()
	devices := map[uint32]bool{}
	err := showIn(strings.NewReader(`23 29 0:21 / /sys rw shared:7 - sysfs sysfs rw
30 29 8:1 / /data rw - fuseblk /dev/sda1 rw
31 29 0:50 / /mnt/a\040b rw - fuse.lxcfs lxcfs rw
32 29 0:50 /proc/meminfo /proc/meminfo rw - fuse.lxcfs lxcfs rw`), devices)
	if got := slices.Sorted(maps.Keys(devices)); err != nil || !slices.Equal(got, []uint32{21, 50}) {
		t.Error(got, err)
	}
	if err := showIn(strings.NewReader("1 2 0:x / / rw\n"), devices); err == nil {
		t.Error("a device that is no number")
	}
}

func TestKilled(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]bool{
		"Name:\tSigPnd\nState:\tS (sleeping)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000004000\n": false,
		"State:\tD (disk sleep)\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n":              true,
		"State:\tT (stopped)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n":                 true,
		"": false,
	} {
		if got := killed(status); got != want {
			t.Errorf("%q: %v", status, got)
		}
	}
}

func TestDying(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := proc.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	dir := p.Path(fmt.Sprintf("task/%d", p.PID()))
	if dying(dir) {
		t.Error("it lives")
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if ended, err := p.Ended(time.Minute); !ended || err != nil {
		t.Fatal(ended, err)
	}
	if !dying(dir) {
		t.Error("it is a zombie")
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if !dying(dir) {
		t.Error("it is gone")
	}
}

// TestMountsOfAThread: the first thread of a container's process may have ended, or have
// other mounts than the one that serves a file system.
func TestMountsOfAThread(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	held, err := proc.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	dir := t.TempDir()
	mounted, done := make(chan error), make(chan struct{})
	defer close(done)
	var tid int
	var st unix.Stat_t
	go func() {
		runtime.LockOSThread() // the thread ends with the function
		tid = unix.Gettid()
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("isolate-test", dir, "tmpfs", 0, "")
		}
		if err == nil {
			err = unix.Stat(dir, &st)
		}
		mounted <- err
		<-done
	}()
	if err := <-mounted; err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		choose func(dir string) bool
		want   bool
	}{
		{"all that live", func(dir string) bool { return !dying(dir) }, true},
		{"others", func(dir string) bool { return filepath.Base(dir) != strconv.Itoa(tid) }, false},
	} {
		found := connections{foreign: map[uint32]bool{}, seen: map[ns.ID]bool{}}
		if err := found.threads(t.Context(), &member.Process{Process: held}, found.foreign, c.choose); err != nil {
			t.Fatal(err)
		}
		if got := found.foreign[unix.Minor(st.Dev)]; got != c.want || len(found.foreign) == 0 {
			t.Errorf("%s: %v is found: %v", c.name, unix.Minor(st.Dev), got)
		}
	}
}

func TestOverlap(t *testing.T) {
	t.Parallel()
	at := func(host idmap.HostID, size uint32) []idmap.Range { return []idmap.Range{{Host: host, Size: size}} }
	for _, c := range []struct {
		a, b []idmap.Range
		want bool
	}{
		{at(10, 10), at(10, 10), true},
		{at(10, 10), at(19, 1), true},
		{at(10, 10), at(20, 10), false},
		{at(20, 10), at(10, 10), false},
		{at(1<<32-11, 10), at(1<<32-2, 1), true},
		{append(at(1, 1), at(10, 10)...), at(15, 1), true},
		{nil, at(10, 10), false},
	} {
		if got := overlap(c.a, c.b); got != c.want {
			t.Errorf("%v and %v: %v", c.a, c.b, got)
		}
	}
}
