// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// measured is what "measure" prints: times in microseconds, in order.
type measured struct {
	// PivotRoot are of the system call alone, as a runtime makes it for a container
	// with a /proc. The first is the first of this process.
	PivotRoot []float64
	// Mount is a mount of a tmpfs and its end, OpenAt2 an open and a close, Sysctl
	// the reading of one, Sysinfo a call; each is a mean of a batch.
	Mount, OpenAt2, Sysctl, Sysinfo []float64
}

const (
	batches = 7
	// calls are those of a batch.
	calls, mounts = 2000, 100
	// asked are calls of sysinfo(2) in a batch, fewer than are rationed.
	asked  = 20
	pivots = 20
)

// measure times what a runtime inside a container does.
func measure([]string) (any, error) {
	dir, err := os.MkdirTemp("", "measure")
	if err != nil {
		return nil, err
	}
	m := measured{}
	for range pivots {
		took, err := timePivot(dir)
		if err != nil {
			return nil, err
		}
		m.PivotRoot = append(m.PivotRoot, took)
	}
	how := &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	buffer := make([]byte, 64)
	for range batches {
		for _, part := range []struct {
			times *[]float64
			count int
			call  func() error
		}{
			{&m.Mount, mounts, func() error {
				return errors.Join(unix.Mount("none", dir, "tmpfs", 0, ""), unix.Unmount(dir, 0))
			}},
			{&m.OpenAt2, calls, func() error {
				fd, err := unix.Openat2(unix.AT_FDCWD, "/etc/passwd", how)
				if err != nil {
					return err
				}
				return unix.Close(fd)
			}},
			{&m.Sysctl, calls, func() error {
				fd, err := unix.Open("/proc/sys/kernel/ostype", unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					return err
				}
				_, err = unix.Read(fd, buffer)
				return errors.Join(err, unix.Close(fd))
			}},
			{&m.Sysinfo, asked, func() error { return unix.Sysinfo(&unix.Sysinfo_t{}) }},
		} {
			start := time.Now()
			for range part.count {
				if err := part.call(); err != nil {
					return nil, err
				}
			}
			*part.times = append(*part.times, microseconds(time.Since(start))/float64(part.count))
		}
	}
	return m, nil
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// timePivot makes a root and changes to it, in a mount namespace and on a thread
// that are thrown away.
func timePivot(dir string) (took float64, _ error) {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			proc := filepath.Join(dir, "proc")
			if err := errors.Join(
				unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
				unix.Mount("root", dir, "tmpfs", 0, ""),
				os.Mkdir(proc, 0o755),
				unix.Mount("proc", proc, "proc", 0, ""),
				unix.Chdir(dir),
			); err != nil {
				return fmt.Errorf("make a root: %w", err)
			}
			start := time.Now()
			if err := unix.PivotRoot(".", "."); err != nil {
				return fmt.Errorf("pivot_root: %w", err)
			}
			took = microseconds(time.Since(start))
			return nil
		}()
	}()
	err := <-result
	return took, err
}
