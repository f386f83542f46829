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
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/ns"
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
			status, err := p.Read("status")
			if err != nil || killed(string(status)) {
				return err
			}
			return c.mounts(within, p, "", c.foreign)
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

// self notes the connections that show in the mounts of the container's own process. The
// first thread of one that was killed has often ended.
func (c *connections) self(ctx context.Context, p *member.Process) error {
	threads, err := os.ReadDir(p.Path("task"))
	if err != nil {
		return nil //nolint:nilerr // it has ended
	}
	for _, thread := range threads {
		if err := c.mounts(ctx, p, "task/"+thread.Name()+"/", c.own); err != nil {
			return err
		}
	}
	return nil
}

func late(err error) bool {
	return errors.Is(err, mount.ErrSlowTable) || errors.Is(err, context.DeadlineExceeded)
}

// mounts notes the devices in the mount namespace of a process, or of a thread of it in
// the directory dir, unless the namespace was seen before.
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

// killed tells whether SIGKILL is pending for a process, or whether it is a zombie whose
// other threads are still ending (proc_pid_status(5)).
func killed(status string) bool {
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); name {
		case "State":
			if strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X") {
				return true
			}
		case "SigPnd", "ShdPnd":
			set, err := strconv.ParseUint(value, 16, 64)
			if err == nil && set&(1<<(unix.SIGKILL-1)) != 0 {
				return true
			}
		}
	}
	return false
}
