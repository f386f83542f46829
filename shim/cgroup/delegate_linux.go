// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/shim/member"
)

// Options say how much is done.
type Options struct {
	// Leaf asks to move the processes of a pure v2 container to a leaf group and
	// to enable all controllers. It must not be set for systemd, which does the same
	// by itself and would start below the leaf.
	Leaf bool
	// Devices are the devices that the container was given, as rules for one device or
	// for a major number. The group is denied the machine's console and disks unless
	// they are among these.
	Devices []specs.LinuxDeviceCgroup
	// MaxDescendants and MaxDepth bound the groups that the container makes below its
	// own on cgroup v2. Zero is no bound.
	MaxDescendants, MaxDepth uint32
}

// Delegate makes owner, the container's root, the owner of the groups that the
// container's first process is in: on v1 of the directory, cgroup.procs and
// tasks, on v2 of the directory and of the files that the kernel lists in
// /sys/kernel/cgroup/delegate; of nothing else and nothing below.
//
// It is meant for the time between the runtime's create and start, when p is
// the only process of the container and runs no program of its own yet. It may
// be repeated, and run beside a runtime that does the same. After an error in
// one hierarchy it goes on with the others; the report is valid in any case.
func Delegate(p *member.Process, owner idmap.Owner, o Options) (Report, error) {
	r, err := delegate(p, owner, o)
	if err != nil {
		err = fmt.Errorf("delegate cgroups of process %d: %w", p.PID(), err)
	}
	return r, err
}

func delegate(p *member.Process, owner idmap.Owner, o Options) (Report, error) {
	var r Report
	if err := p.Confined(false); err != nil {
		return r, err
	}
	pid := p.PID()
	users, err := ns.At(p.Path("ns/user"))
	if err != nil {
		return r, err
	}
	content, err := p.Read("cgroup")
	if err != nil {
		return r, err
	}
	memberships, err := parseMemberships(string(content))
	if err != nil {
		return r, err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return r, fmt.Errorf("list cgroup mounts: %w", err)
	}
	var errs []error
	for _, m := range memberships {
		where, reason := locate(m, mounts)
		if reason == "" {
			reason, err = r.one(pid, users, owner, o, m, where, hasDevices(m, memberships))
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", where, err))
			}
		}
		if reason != "" {
			r.Skipped = append(r.Skipped, Skipped{m.String(), reason})
		}
	}
	return r, errors.Join(errs...)
}

// one delegates the group in one hierarchy, or returns why it may not.
func (r *Report) one(pid int, users ns.ID, owner idmap.Owner, o Options, m membership, where place, devices bool) (string, error) {
	g, err := open(where, m.Unified())
	if err != nil {
		return "", err
	}
	defer g.Close()
	processes, reason, err := g.exclusive(pid, users, owner)
	if reason != "" || err != nil {
		return reason, err
	}
	if m.Unified() {
		if err := g.bound(o.MaxDescendants, o.MaxDepth); err != nil {
			return "", err
		}
	}
	if err := g.chown(owner); err != nil {
		return "", err
	}
	r.Delegated = append(r.Delegated, where.String())
	var denied error // the rest is done all the same
	if devices {
		if denied = g.denyDevices(o.Devices); denied != nil {
			denied = fmt.Errorf("deny the machine's devices: %w", denied)
		}
	}
	if !m.Unified() || !o.Leaf {
		return "", denied
	}
	r.NoLeaf, err = whyNoLeaf(pid, m)
	if err != nil || r.NoLeaf != "" {
		return "", errors.Join(denied, err)
	}
	moved, controllers, err := g.leaf(processes, owner)
	r.Controllers = controllers
	if moved {
		r.Leaf = where.String() + "/" + leafName
	} else if err == nil {
		r.NoLeaf = "no controller is available"
	}
	return "", errors.Join(denied, err)
}

// tableTime is how long the mounts of a container are read at most; ordinary ones take
// less than a millisecond.
const tableTime = time.Second

func whyNoLeaf(pid int, m membership) (string, error) {
	theirs, err := ns.At(fmt.Sprintf("/proc/%d/ns/cgroup", pid))
	if err != nil {
		return "", err
	}
	ours, err := ns.Own("cgroup")
	if err != nil {
		return "", err
	}
	// Roots are shown relative to the reader's cgroup namespace, as the path in
	// m is (kernel/cgroup/cgroup.c: cgroup_show_path).
	file, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return "", err
	}
	defer file.Close()
	// A volume may bring very many mounts.
	table := &mount.Table{Mountinfo: file, Until: time.Now().Add(tableTime)}
	mounts, err := mountinfo.GetMountsFromReader(table, func(m *mountinfo.Info) (skip, stop bool) {
		return m.Mountpoint != mountpoint, false
	})
	if errors.Is(err, mount.ErrSlowTable) {
		return err.Error(), nil
	}
	if err != nil {
		return "", fmt.Errorf("list mounts of process %d: %w", pid, err)
	}
	return noLeaf(m, theirs == ours, mounts), nil
}
