// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroups = "/sys/fs/cgroup"

// limits tries to get more than the container was given. The test gives it 128
// MiB, one CPU of a set, and a quota.
func limits(f facts) {
	tried := 0
	if unified() {
		tried = group(cgroups, "")
	} else {
		for _, name := range directories(cgroups) {
			tried += group(filepath.Join(cgroups, name), "")
		}
	}
	say("limits/tried", strconv.Itoa(tried), "")
	freshCgroups()
	if unified() {
		unifiedSubgroup(f)
	} else {
		subgroups(f)
	}
	resources()
}

// unified reports whether the container has the one hierarchy of version 2.
func unified() bool {
	_, err := os.Stat(cgroups + "/cgroup.controllers")
	return err == nil
}

// group opens each file of a cgroup for writing, and reports those that open.
func group(dir, label string) int {
	entries, err := os.ReadDir(dir)
	must(err)
	tried := 0
	name := filepath.Base(dir)
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		tried++
		path := filepath.Join(dir, e.Name())
		if open(path, unix.O_WRONLY) == nil {
			say(fmt.Sprintf("cgroup:%s%s/%s", label, name, e.Name()), allowed, "")
		}
		if os.Chmod(path, 0o666) == nil && !delegated(e.Name()) {
			say(fmt.Sprintf("cgroup-chmod:%s%s/%s", label, name, e.Name()), allowed, "")
		}
	}
	return tried
}

// delegated are the files that belong to the container, with their modes: those of
// cgroups(7), and of version 2 what the kernel names in /sys/kernel/cgroup/delegate.
func delegated(name string) bool {
	return slices.Contains([]string{
		"cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control",
		"memory.oom.group", "memory.reclaim",
	}, name)
}

// freshCgroups mounts hierarchies anew.
func freshCgroups() {
	for _, kind := range []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "name=systemd", "none,name=escape", "release_agent"} {
		dir := filepath.Join(scratch, "cgroup", kind)
		must(os.MkdirAll(dir, 0o700))
		options := kind
		if kind == "release_agent" {
			options = "memory,release_agent=/escape"
		}
		err := unix.Mount("none", dir, "cgroup", 0, options)
		report("cgroup-mount:"+kind, err)
		if err != nil {
			continue
		}
		group(dir, "fresh:")
		others := directories(dir)
		say("cgroup-others:"+kind, strconv.Itoa(len(others)), strings.Join(others, " "))
		try("cgroup-agent:"+kind, func() error {
			return os.WriteFile(filepath.Join(dir, "release_agent"), []byte("/escape"), 0)
		})
	}
	dir := filepath.Join(scratch, "cgroup", "2")
	must(os.MkdirAll(dir, 0o700))
	try("cgroup2-mount", func() error { return unix.Mount("none", dir, "cgroup2", 0, "") })
	group(dir, "fresh:")
	try("cgroup2-mkdir", func() error { return os.Mkdir(filepath.Join(dir, "escape"), 0o700) })
}

func directories(dir string) []string {
	var names []string
	entries, err := os.ReadDir(dir)
	must(err)
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// subgroups gives groups of its own making more than the container has.
func subgroups(f facts) {
	sub := func(controller, file, value string) error {
		dir := filepath.Join(cgroups, controller, "escape")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, file), []byte(value), 0)
	}
	try("subgroup:devices.allow", func() error { return sub("devices", "devices.allow", "a *:* rwm") })
	try("subgroup:devices.allow-disk", func() error {
		return sub("devices", "devices.allow", fmt.Sprintf("b %d:%d rw", f.Block[0], f.Block[1]))
	})
	try("subgroup:cpuset.cpus", func() error { return sub("cpuset", "cpuset.cpus", "0-1") })
	try("subgroup:cpu.cfs_quota_us", func() error { return sub("cpu", "cpu.cfs_quota_us", "1000000") })
	try("subgroup:cpu.rt_runtime_us", func() error { return sub("cpu", "cpu.rt_runtime_us", "900000") })
	try("subgroup:host-process", func() error { return sub("memory", "cgroup.procs", strconv.Itoa(f.Pid)) })
	try("subgroup:memory.limit_in_bytes", func() error { return sub("memory", "memory.limit_in_bytes", "-1") })

	hogMemory()
	for _, controller := range []string{"devices", "cpuset", "cpu", "memory"} {
		removeGroup(filepath.Join(cgroups, controller, "escape"))
	}
}

// unifiedSubgroup does the same with a group of version 2.
func unifiedSubgroup(f facts) {
	dir := filepath.Join(cgroups, "escape")
	must(os.MkdirAll(dir, 0o700))
	sub := func(file, value string) error { return os.WriteFile(filepath.Join(dir, file), []byte(value), 0) }
	try("subgroup:cpuset.cpus", func() error { return sub("cpuset.cpus", "0-1") })
	effective, err := os.ReadFile(filepath.Join(dir, "cpuset.cpus.effective"))
	must(err)
	say("subgroup:cpuset.cpus.effective", strings.TrimSpace(string(effective)), "")
	try("subgroup:cpuset.cpus.partition", func() error {
		if err := sub("cpuset.cpus.partition", "root"); err != nil {
			return err
		}
		state, err := os.ReadFile(filepath.Join(dir, "cpuset.cpus.partition"))
		must(err)
		if strings.HasPrefix(string(state), "root invalid") {
			return errors.New("invalid")
		}
		return nil
	})
	try("subgroup:cpu.max", func() error { return sub("cpu.max", "max") })
	try("subgroup:host-process", func() error { return sub("cgroup.procs", strconv.Itoa(f.Pid)) })
	try("subgroup:memory.max", func() error { return sub("memory.max", "max") })
	hogMemory()
	removeGroup(dir)
}

// hogMemory shows that the limit above holds all the same.
func hogMemory() {
	command := exec.CommandContext(context.Background(), "/proc/self/exe", "child", "hog")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	err := command.Run()
	if err == nil {
		err = errors.New("got it")
	}
	say("subgroup:memory", err.Error(), "")
}

func removeGroup(dir string) {
	var err error
	for range 100 { // until the dead have left
		if err = os.Remove(dir); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	must(err)
}

// hog takes more memory than the container has.
func hog() {
	dir := cgroups + "/memory/escape"
	if unified() {
		dir = cgroups + "/escape"
	}
	must(os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0))
	memory, err := unix.Mmap(-1, 0, 192<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	must(err)
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = 1
	}
}

// resources raises what is not counted by cgroups.
func resources() {
	for name, resource := range map[string]int{"nofile": unix.RLIMIT_NOFILE, "memlock": unix.RLIMIT_MEMLOCK, "nproc": unix.RLIMIT_NPROC, "rtprio": unix.RLIMIT_RTPRIO, "nice": unix.RLIMIT_NICE} {
		try("rlimit:"+name, func() error {
			var l unix.Rlimit
			must(unix.Getrlimit(resource, &l))
			if l.Max == unix.RLIM_INFINITY {
				return fmt.Errorf("unlimited")
			}
			l.Max++
			return unix.Prlimit(1, resource, &l, nil)
		})
	}
	try("oom_score_adj", func() error {
		return os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
	})
	try("nice", func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -5) })
	try("realtime", func() error {
		return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	})
	const ioprioRT = 1 << 13
	try("ioprio", func() error { return call(unix.SYS_IOPRIO_SET, 1, 0, ioprioRT) })
	try("mlock", func() error {
		memory, err := unix.Mmap(-1, 0, 80<<20, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		must(err)
		return unix.Mlock(memory)
	})
}
