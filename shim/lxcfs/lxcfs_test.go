// SPDX-License-Identifier: Apache-2.0

package lxcfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/disposable"
	linuxmount "github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/shim/config"
)

func TestMain(m *testing.M) {
	MaybeChild()
	os.Exit(m.Run())
}

func TestChoose(t *testing.T) {
	t.Parallel()
	const table = `
24 1 0:22 / / rw - ext4 /dev/root rw
30 24 0:40 / /var/lib/lxcfs rw,nosuid,nodev - fuse.lxcfs lxcfs rw
31 24 0:41 / /mnt/other rw - fuse.sshfs host rw
32 24 0:42 / /run/lxcfs rw - fuse.lxcfs lxcfs rw
33 24 0:42 / /srv/bind rw - fuse.lxcfs lxcfs rw
34 24 0:40 /proc/meminfo /srv/rootfs/proc/meminfo rw - fuse.lxcfs lxcfs rw
35 24 0:43 / /gone//deleted rw - fuse.lxcfs lxcfs rw
`
	for _, c := range []struct {
		name, table, path string
		want              []mount
		wantErr           string
	}{
		{"newest of each superblock", table, "", []mount{{33, Device{0, 42}, "/srv/bind"}, {30, Device{0, 40}, "/var/lib/lxcfs"}}, ""},
		{"path", table, "/var/lib/lxcfs", []mount{{30, Device{0, 40}, "/var/lib/lxcfs"}}, ""},
		{"path, written otherwise", table, "/var/lib//lxcfs/", []mount{{30, Device{0, 40}, "/var/lib/lxcfs"}}, ""},
		{"path of another file system", table, "/mnt/other", nil, `"/mnt/other" (lxcfs.path)`},
		{"part of one", table, "/srv/rootfs/proc/meminfo", nil, "lxcfs.path"},
		{"a later mount on the same place", table + "36 30 0:44 / /var/lib/lxcfs rw - fuse.lxcfs lxcfs rw\n", "/var/lib/lxcfs", []mount{{36, Device{0, 44}, "/var/lib/lxcfs"}, {30, Device{0, 40}, "/var/lib/lxcfs"}}, ""},
		{"none", "24 1 0:22 / / rw - ext4 /dev/root rw\n", "", nil, "lxcfs -l --enable-cfs --enable-pidfd"},
		{"no mounts", "", "", nil, `lxcfs.mode = "off"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			infos, err := mountinfo.GetMountsFromReader(strings.NewReader(strings.TrimPrefix(c.table, "\n")), nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := choose(infos, c.path)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if c.wantErr == "" != (err == nil) || err != nil && (!errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), c.wantErr)) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestMountedFiles(t *testing.T) {
	t.Parallel()
	const table = `
24 1 0:22 / / rw - overlay overlay rw
25 24 0:23 / /proc rw - proc proc rw
30 25 0:40 /proc/meminfo /proc/meminfo ro - fuse.lxcfs lxcfs rw
31 30 0:41 /proc/meminfo /proc/meminfo ro - fuse.lxcfs lxcfs rw
32 25 0:40 /proc/stat /proc/uptime ro - fuse.lxcfs lxcfs rw
33 24 0:40 /proc/stat /mnt/stat ro - fuse.lxcfs lxcfs rw
34 24 0:40 / /mnt/all ro - fuse.lxcfs lxcfs rw
35 25 0:42 /proc/swaps /proc/swaps ro - fuse.other lxcfs rw
36 24 0:40 /sys/devices/system/cpu/online /sys/devices/system/cpu/online ro - fuse.lxcfs lxcfs rw
37 25 0:40 /proc/loadavg//deleted /proc/loadavg ro - fuse.lxcfs lxcfs rw
38 24 0:40 /proc/loadavg//deleted /mnt/loadavg ro - fuse.lxcfs lxcfs rw
`
	want := []MountedFile{
		{"proc/meminfo", 30, Device{0, 40}},
		{"proc/meminfo", 31, Device{0, 41}},
		{cpuOnline, 36, Device{0, 40}},
		{"proc/loadavg", 37, Device{0, 40}},
	}
	got, err := MountedFiles(strings.NewReader(strings.TrimPrefix(table, "\n")))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got  %v, %v\nwant %v", got, err, want)
	}
	if _, err := MountedFiles(strings.NewReader("nonsense - fuse.lxcfs \n")); err == nil {
		t.Error("nonsense was read")
	}
}

// A container can have any number of mounts, and of files of lxcfs among them.
func TestMountedFilesHugeTable(t *testing.T) {
	t.Parallel()
	const one = "30 25 0:40 /proc/meminfo /proc/meminfo ro - fuse.lxcfs lxcfs rw\n"
	long := "31 25 0:22 / /" + strings.Repeat("x", 100<<10) + " - fuse.lxcfs lxcfs rw\n"
	others := strings.Repeat("32 25 0:22 / /mnt rw - tmpfs tmpfs rw\n", 20_000)
	got, err := MountedFiles(strings.NewReader(others + long + one))
	if err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	got, err = MountedFiles(strings.NewReader(strings.Repeat(one, maxMountedFiles+5)))
	if err != nil || len(got) != maxMountedFiles {
		t.Errorf("%d of %d, %v", len(got), maxMountedFiles+5, err)
	}
}

// slowTable is a mountinfo of which the kernel writes a line of 4 kB in 10 ms.
type slowTable struct{ read int }

func (s *slowTable) Read(b []byte) (int, error) {
	line := "30 25 0:40 /proc/meminfo /proc/meminfo ro - fuse.lxcfs lxcfs rw\n"
	if s.read > 0 {
		line = "32 25 0:22 / /" + strings.Repeat("x", 4<<10) + " rw - tmpfs tmpfs rw\n"
		time.Sleep(10 * time.Millisecond)
	}
	s.read++
	return copy(b, line), nil
}

// A table without an end, in effect.
func TestMountedFilesSlowTable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		got, err := MountedFiles(&slowTable{})
		if d := time.Since(start); !errors.Is(err, linuxmount.ErrSlowTable) || len(got) != 1 || d > 4*time.Second {
			t.Errorf("%v, %v after %v", got, err, d)
		}
	})
}

func TestWithheld(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		blkio bool
		want  bool
	}{
		{"proc/slabinfo", false, true}, {"proc/diskstats", true, true}, {"proc/diskstats", false, false}, {"proc/stat", true, false},
	} {
		if got := withheld(c.name, c.blkio); got != c.want {
			t.Errorf("%s, blkio of v1 %v: %v", c.name, c.blkio, got)
		}
	}
}

func FuzzMountedFiles(f *testing.F) {
	f.Add("30 25 0:40 /proc/meminfo /proc/meminfo ro - fuse.lxcfs lxcfs rw\n")
	f.Fuzz(func(t *testing.T, table string) {
		found, err := MountedFiles(strings.NewReader(table))
		for _, b := range found {
			if err != nil || !servable(b.Name) {
				t.Errorf("%v, %v", b, err)
			}
		}
	})
}

func TestServable(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"proc/meminfo": true, "proc/pressure/cpu": true, cpuOnline: true,
		"proc": false, "proc/": false, "sys/devices/system/cpu/possible": false, "/proc/meminfo": false,
		"proc/../etc/passwd": false, "proc/a/../b": false, "proc//a": false, "proc/a b": false, "proc/\x00": false,
		"proc/" + strings.Repeat("x", 200): false, "": false,
	} {
		if got := servable(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	file := []File{{Name: "proc/stat"}}
	for _, c := range []struct {
		name string
		s    Result
		end  message
		want error
		text string
	}{
		{"served", Result{Files: file}, message{End: true}, nil, ""},
		{"served in part", Result{Files: file, Skipped: map[string]error{"proc/x": unix.EACCES}}, message{End: true}, nil, ""},
		{"dead", Result{Origin: Origin{Root: "/l"}}, message{End: true, Failed: "open proc", Errno: unix.ENOTCONN}, ErrDead, "umount -l /l"},
		{"died while reading", Result{Files: file}, message{End: true, Failed: "read", Errno: unix.ECONNABORTED}, ErrDead, "start lxcfs again"},
		{"refuses the list", Result{}, message{End: true, Failed: "open proc", Errno: unix.EACCES}, errRefused, "/proc/1/personality"},
		{"serves no directory", Result{}, message{End: true, Failed: "open proc", Errno: unix.EIO}, errRefused, "lxcfs 7 does so on a host with cgroup version 1"},
		{"refuses each file", Result{Skipped: map[string]error{"proc/x": unix.EACCES}}, message{End: true}, errRefused, "proc/x: permission denied"},
		{"hidden", Result{Origin: Origin{Root: "/l"}}, message{End: true, Failed: errHidden.Error(), Hidden: true}, ErrAbsent, `"/l" is hidden`},
		{"serves nothing", Result{}, message{End: true}, ErrDead, "serves no file"},
	} {
		err := verdict(c.s, c.end)
		if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// tree is a directory that looks like lxcfs's, and its mount, or the nearest
// thing: a directory needs no FUSE to be listed, read and cloned.
func tree(t *testing.T, files map[string]string) mount {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: cloning a mount takes CAP_SYS_ADMIN")
	}
	dir := t.TempDir()
	for name, body := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return mount{ID: mountID(t, dir), Root: dir}
}

func mountID(t *testing.T, path string) int {
	t.Helper()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil {
		t.Fatal(err)
	}
	return int(st.Mnt_id)
}

func names(s Result) []string {
	var out []string
	for _, f := range s.Files {
		out = append(out, f.Name)
	}
	return out
}

func TestProbeMount(t *testing.T) {
	t.Parallel()
	m := tree(t, map[string]string{
		"proc/meminfo": "MemTotal: 1\n", "proc/stat": "cpu\n", "proc/pressure/cpu": "some\n", "proc/swaps": "",
		"proc/a/b/c": "too deep", "proc/odd name": "x",
		cpuOnline: "0\n", "sys/devices/system/cpu/possible": "0\n", "cgroup/x": "x",
	})
	if err := os.Symlink("/etc/passwd", filepath.Join(m.Root, "proc/link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(m.Root, "proc/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := probeMount(t.Context(), m, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"proc/meminfo", "proc/pressure/cpu", "proc/stat", "proc/swaps", cpuOnline}
	if !slices.Equal(names(s), want) || len(s.Skipped) != 0 || s.Root != m.Root {
		t.Errorf("got %v, skipped %v; want %v", names(s), s.Skipped, want)
	}
	for _, f := range s.Files {
		got, err := os.ReadFile(link(f.Mount))
		if err != nil {
			t.Fatal(err)
		}
		real, err := os.ReadFile(filepath.Join(m.Root, f.Name))
		if err != nil || string(got) != string(real) {
			t.Errorf("%s: %q, want %q (%v)", f.Name, got, real, err)
		}
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(f.Mount.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		if want := int64(unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC); st.Flags&want != want {
			t.Errorf("%s: mount flags %#x", f.Name, st.Flags)
		}
		if id := mountID(t, link(f.Mount)); id == m.ID {
			t.Errorf("%s is not a mount of its own", f.Name)
		}
	}
	CloseFiles(s.Files)
}

// link is a path to an open file.
func link(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func TestProbeMountWhatIsNotLxcfs(t *testing.T) {
	t.Parallel()
	m := tree(t, map[string]string{"proc/x/y/z": "", "proc/big": "x"})
	empty := tree(t, map[string]string{"proc/x/y/z": ""})
	for _, c := range []struct {
		name string
		m    mount
		want error
		text string
	}{
		{"hidden", mount{ID: m.ID + 100000, Root: m.Root}, ErrAbsent, "mounted over it"},
		{"no files", empty, ErrDead, "serves no file"},
		{"no proc", mount{ID: m.ID, Root: m.Root + "/proc"}, nil, "no such file"},
		{"no directory", mount{ID: m.ID, Root: m.Root + "/absent"}, nil, "open mount point"},
	} {
		_, err := probeMount(t.Context(), c.m, 10*time.Second)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestStartModes(t *testing.T) {
	t.Parallel()
	off := StartProbe(t.Context(), config.LXCFS{Mode: config.LXCFSOff})
	if _, err := off.Result(); !errors.Is(err, ErrOff) || off.Required() || off.Mounted() {
		t.Error(err)
	}
	l := StartProbe(t.Context(), config.LXCFS{Mode: config.LXCFSRequire, Path: "/nowhere", TimeoutMS: 1000})
	if _, err := l.Result(); !errors.Is(err, ErrAbsent) || !l.Required() || l.Mounted() {
		t.Error(err)
	}
	for range 2 {
		off.Close()
		l.Close()
	}
}

// A child that says nothing is what a hung server makes of it.
func TestASilentChildIsHung(t *testing.T) {
	t.Parallel()
	ours, theirs, err := disposable.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	defer ours.Close() //nolint:errcheck // read-only
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = ours.SetReadDeadline(time.Unix(1, 0)) })()
	start := time.Now()
	if _, _, err := receive(ours); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

// What a child sends is not trusted further than it makes sense.
func TestReceiveRefusesNonsense(t *testing.T) {
	t.Parallel()
	send := func(data string, fds ...int) error {
		ours, theirs, err := disposable.SocketPair()
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close() //nolint:errcheck // read-only
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		if err := unix.Sendmsg(int(theirs.Fd()), []byte(data), rights, nil, 0); err != nil {
			t.Fatal(err)
		}
		if err := theirs.Close(); err != nil {
			t.Fatal(err)
		}
		_, f, err := receive(ours)
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return err
	}
	if err := send(`{"file":"proc/stat"}`, 0); err != nil {
		t.Error(err)
	}
	if err := send(`{"end":true}`); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		data string
		fds  []int
	}{
		{"", nil},
		{"{", nil},
		{`{"file":"proc/stat"}`, nil},
		{`{"end":true}`, []int{0}},
		{`{"file":"proc/stat"}`, []int{0, 0}},
		{`{"file":"../etc/passwd"}`, []int{0}},
		{`{"file":"proc/stat"}`, []int{0, 0, 0, 0, 0, 0, 0}},
		{strings.Repeat("x", 2*maxMessage), nil},
	} {
		if err := send(c.data, c.fds...); err == nil {
			t.Errorf("%.40q with %d descriptors was taken", c.data, len(c.fds))
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"file":"proc/meminfo"}`))
	f.Add([]byte(`{"skip":"proc/x","errno":13}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decode(data)
		if err != nil || m.File == "" {
			return
		}
		if !filepath.IsLocal(m.File) || m.File != filepath.Clean(m.File) {
			t.Errorf("unsafe name %q", m.File)
		}
	})
}
