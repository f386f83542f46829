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

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/shim/member"
)

// host notes the connections that show in the host's mounts.
func (c connections) host() error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	return c.showIn(f)
}

// peer notes the connections that show in the mounts of a living container.
func (c connections) peer(ctx context.Context, peer member.Container) error {
	seen := map[ns.ID]bool{}
	for _, dir := range peer.Cgroups {
		if err := eachIn(ctx, dir, peer, func(p *member.Process) error { return c.process(p, seen) }); err != nil {
			return err
		}
	}
	return nil
}

// process notes the connections that show in the mounts of a process, unless the process
// was killed: two containers that wait for each other's servers must not protect each
// other.
func (c connections) process(p *member.Process, seen map[ns.ID]bool) error {
	status, err := p.Read("status")
	if err != nil {
		return err
	}
	if killed(string(status)) {
		return nil
	}
	id, err := ns.At(p.Path("ns/mnt"))
	if err != nil || seen[id] {
		return nil // a process that is ending has no mounts
	}
	seen[id] = true
	f, err := os.Open(p.Path("mountinfo"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := c.showIn(f); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// showIn notes the devices of a mountinfo (proc_pid_mountinfo(5)) that may be FUSE
// connections, which have major number 0. It reads line by line, since a container can
// make very many mounts.
func (c connections) showIn(mountinfo io.Reader) error {
	lines := bufio.NewReader(mountinfo)
	for {
		line, err := lines.ReadString('\n')
		if fields := strings.SplitN(line, " ", 4); len(fields) == 4 {
			if minor, ok := strings.CutPrefix(fields[2], "0:"); ok {
				n, err := strconv.ParseUint(minor, 10, 32)
				if err != nil {
					return fmt.Errorf("parse mountinfo %q: %w", line, err)
				}
				c.foreign[uint32(n)] = true
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
