// SPDX-License-Identifier: Apache-2.0

package ending

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/member"
)

// host notes the connections that show in the host's mounts.
func (c *connections) host() error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	return showIn(f, c.foreign)
}

// peerTime is how long to look for the mounts of one other container. Ordinary ones are
// read in milliseconds.
const peerTime = time.Second

// peer notes the connections that show in the mounts of a living container, or that they
// could not be read in time. Processes that were killed do not count: two containers that
// wait for each other's servers must not protect each other.
func (c *connections) peer(ctx context.Context, peer Peer) error {
	within, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	for _, dir := range peer.Cgroups {
		err := eachIn(within, dir, peer.Container, func(p *member.Process) error {
			return c.threads(within, p, c.foreign, func(dir string) bool { return !dying(dir) })
		})
		if late(err) {
			c.unread = append(c.unread, peer.Name)
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// self notes the connections that show in the mounts of the container's own process.
func (c *connections) self(ctx context.Context, p *member.Process) error {
	return c.threads(ctx, p, c.own, func(string) bool { return true })
}

// threads notes the devices in the mounts of a process's threads for which choose, which
// gets the directory of a thread, returns true. The first thread may have ended while
// others live, and a thread can have mounts of its own.
func (c *connections) threads(ctx context.Context, p *member.Process, devices map[uint32]bool, choose func(dir string) bool) error {
	threads, err := os.ReadDir(p.Path("task"))
	if err != nil {
		return nil //nolint:nilerr // it has ended
	}
	for _, thread := range threads {
		dir := "task/" + thread.Name() + "/"
		if !choose(p.Path(dir)) {
			continue
		}
		if err := c.mounts(ctx, p, dir, devices); err != nil {
			return err
		}
	}
	return nil
}

func late(err error) bool {
	return errors.Is(err, mount.ErrSlowTable) || errors.Is(err, context.DeadlineExceeded)
}

// mounts notes the devices in the mount namespace of a thread of a process, in the
// directory dir, unless the namespace was seen before.
func (c *connections) mounts(ctx context.Context, p *member.Process, dir string, devices map[uint32]bool) error {
	id, err := ns.At(p.Path(dir + "ns/mnt"))
	if err != nil || c.seen[id] {
		return nil // a process that is ending has no mounts
	}
	f, err := os.Open(p.Path(dir + "mountinfo"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	c.seen[id] = true
	until, _ := ctx.Deadline()
	return showIn(&mount.Table{Mountinfo: f, Until: until}, devices)
}

// showIn notes the devices of a mountinfo (proc_pid_mountinfo(5)) that may be FUSE
// connections, which have major number 0. It reads line by line, since a container can
// make very many mounts.
func showIn(mountinfo io.Reader, devices map[uint32]bool) error {
	lines := bufio.NewReader(mountinfo)
	for {
		line, err := lines.ReadString('\n')
		if fields := strings.SplitN(line, " ", 4); len(fields) == 4 {
			if minor, ok := strings.CutPrefix(fields[2], "0:"); ok {
				n, err := strconv.ParseUint(minor, 10, 32)
				if err != nil {
					return fmt.Errorf("parse mountinfo %q: %w", line, err)
				}
				devices[uint32(n)] = true
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// dying tells whether a thread, which a directory of /proc is of, has ended, is about to
// end, or has SIGKILL pending (proc_pid_status(5)).
func dying(dir string) bool {
	content, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return true
	}
	stat, err := proc.ParseStat(content)
	if err != nil || stat.Exiting || strings.ContainsRune("ZX", rune(stat.State)) {
		return err == nil
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	return err != nil || killed(string(status))
}

// killed tells whether SIGKILL is pending, by the status of a thread.
func killed(status string) bool {
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		if name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err == nil && set&(1<<(unix.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}
