// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/testmounts"
)

func TestMain(m *testing.M) { os.Exit(testmounts.Run(m)) }

// hung mounts a FUSE file system whose server takes requests and answers none but
// the first. stop ends the server.
func hung(t *testing.T) (dir string, stop func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for mounts")
	}
	dir = t.TempDir()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Blocking reads, ended by the unmount.
	if err := unix.Mount("hung", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		buf := make([]byte, 1<<17)
		for first := true; ; first = false {
			if _, err := unix.Read(fd, buf); err != nil {
				served <- err
				return
			}
			if !first {
				continue
			}
			// struct fuse_out_header and fuse_init_out of <linux/fuse.h>, version 7.31.
			out := make([]byte, 16+64)
			binary.NativeEndian.PutUint32(out, uint32(len(out)))
			copy(out[8:16], buf[8:16]) // unique
			binary.NativeEndian.PutUint32(out[16:], 7)
			binary.NativeEndian.PutUint32(out[20:], 31)
			if _, err := unix.Write(fd, out); err != nil {
				served <- err
				return
			}
		}
	}()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		if err := unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		if err := errors.Join(abort(<-served), unix.Close(fd)); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return dir, stop
}

// abort makes the end of a server no error.
func abort(err error) error {
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ECONNABORTED) {
		return nil
	}
	return err
}

// children counts the processes that this one has, also those that have ended.
func children(t *testing.T) int {
	t.Helper()
	n := 0
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range stats {
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		var pid, ppid int
		var comm, state string
		if _, err := fmt.Sscanf(string(data), "%d %s %s %d", &pid, &comm, &state, &ppid); err == nil && ppid == os.Getpid() {
			n++
		}
	}
	return n
}

// TestHungServer: neither a thread nor a process stays once the server is gone,
// and until then no thread waits.
func TestHungServer(t *testing.T) {
	dir, stop := hung(t)
	if f, err := Cached(filepath.Join(dir, "file")); f != nil || err != nil {
		t.Errorf("cached: %v, %v", f, err)
	}
	before := children(t)
	for _, path := range []string{dir, filepath.Join(dir, "file")} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		began := time.Now()
		f, err := Ask(ctx, path)
		cancel()
		if f != nil || !errors.Is(err, ErrNoAnswer) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, %v", path, f, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: took %v", path, took)
		}
	}
	stop()
	for deadline := time.Now().Add(10 * time.Second); children(t) > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("a process stays")
		}
	}
}

// TestDeadServer: it answers at once, by an error.
func TestDeadServer(t *testing.T) {
	dir, _ := hung(t)
	kept, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kept)
	if err := unix.Unmount(dir, unix.MNT_FORCE); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	if f, err := Ask(t.Context(), dir); f != nil || err == nil {
		t.Errorf("%v, %v", f, err)
	}
}

func TestAsk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(dir+"/file", nil, 0o600), os.Symlink("file", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{"/link": nil, "/file": nil, "": nil, "/none": unix.ENOENT, "/file/x": unix.ENOTDIR} {
		f, err := Ask(t.Context(), dir+path)
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", path, err, want)
			continue
		}
		if want != nil {
			if f, err := Cached(dir + path); f != nil || err != nil && !errors.Is(err, want) {
				t.Errorf("%q from memory: %v, %v; want %v", path, f, err, want)
			}
			continue
		}
		got, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(dir + path); err != nil || !os.SameFile(info, got) {
			t.Errorf("%q: another file, %v", path, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkAsk(b *testing.B) {
	for b.Loop() {
		f, err := Ask(b.Context(), "/etc")
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

func BenchmarkCached(b *testing.B) {
	for b.Loop() {
		if f, err := Cached("/etc"); f != nil && err == nil {
			f.Close()
		}
	}
}
