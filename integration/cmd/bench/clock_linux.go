// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clock tells the CPU time that containerd, its shims, the runtimes and the
// containers have used: that of all the rig but for the client's, which is in a
// cgroup of its own. Groups count what ran in groups that are gone.
type clock struct {
	root, client, server string
	v2                   bool
}

// newClock puts this process, hence ctr, and containerd, hence its shims, into
// cgroups of their own.
func newClock(containerd int) (clock, error) {
	c := clock{root: "/sys/fs/cgroup/cpuacct"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		c.root, c.v2 = "/sys/fs/cgroup", true
	}
	c.client, c.server = filepath.Join(c.root, "bench-client"), filepath.Join(c.root, "bench-server")
	for dir, pid := range map[string]int{c.client: os.Getpid(), c.server: containerd} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return clock{}, fmt.Errorf("make cgroup: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return clock{}, fmt.Errorf("join cgroup: %w", err)
		}
	}
	return c, nil
}

// read returns the CPU time so far, once no shim is left that still uses some.
func (c clock) read() (time.Duration, error) {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(c.server, "cgroup.procs"))
		if err != nil {
			return 0, fmt.Errorf("list processes: %w", err)
		}
		if len(strings.Fields(string(text))) == 1 {
			break
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("shims are left: processes %q", strings.Fields(string(text)))
		}
	}
	all, err := c.usage(c.root)
	if err != nil {
		return 0, err
	}
	client, err := c.usage(c.client)
	return all - client, err
}

func (c clock) usage(dir string) (time.Duration, error) {
	name, unit := "cpuacct.usage", time.Nanosecond
	if c.v2 {
		name, unit = "cpu.stat", time.Microsecond
	}
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	// The first line of cpu.stat is usage_usec.
	line, _, _ := strings.Cut(string(text), "\n")
	n, err := strconv.ParseInt(strings.TrimPrefix(line, "usage_usec "), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return time.Duration(n) * unit, nil
}
