// SPDX-License-Identifier: Apache-2.0

package check

import (
	"os"
	"slices"
	"strings"

	"github.com/containerd/cgroups/v3"
	"github.com/moby/sys/mountinfo"

	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/runtime"
)

// cgroup checks the mode of control groups and what is known to stumble over it.
func cgroup(r *Report, cfg config.Config, chosen runtime.Binary) {
	const what = "cgroups"
	if cfg.Runtime.SystemdCgroup && !systemdRuns() {
		r.bad(Failed, what, "set runtime.systemd_cgroup = false in "+config.Dir+"/config.toml", "systemd is to make them (runtime.systemd_cgroup) and does not run on this host")
	}
	switch cgroups.Mode() {
	case cgroups.Unified:
		have := words("/sys/fs/cgroup/cgroup.controllers")
		var lacking []string
		for _, c := range []string{"cpu", "cpuset", "memory", "pids"} {
			if !slices.Contains(have, c) {
				lacking = append(lacking, c)
			}
		}
		if len(lacking) > 0 {
			r.bad(Degraded, what, "boot with cgroup_enable=<controller>, or give this machine the controllers", "version 2 without %s: those limits are not enforced", strings.Join(lacking, ", "))
			return
		}
		r.ok(what, "version 2")
		return
	case cgroups.Hybrid:
		if on := words("/sys/fs/cgroup/unified/cgroup.controllers"); len(on) > 0 && chosen.Name == runtime.Crun {
			r.bad(Degraded, what, "boot with systemd.unified_cgroup_hierarchy=1, umount /sys/fs/cgroup/unified, or use runc",
				"version 1 with %s on version 2, which crun 1.21 and later refuse", strings.Join(on, ", "))
			return
		}
		fallthrough
	case cgroups.Legacy:
		if lost := unmounted(); len(lost) > 0 {
			r.bad(Degraded, what, "mount them below /sys/fs/cgroup, or unmount them everywhere and remove their groups",
				"version 1; %s in use and not mounted, so that containerd cannot read any container's metrics", strings.Join(lost, ", "))
			return
		}
		r.ok(what, "version 1; the kubelet needs failCgroupV1: false from 1.35 on")
	default:
		r.bad(Failed, what, "mount cgroup2 on /sys/fs/cgroup", "no control groups are mounted")
	}
}

// unmounted returns the version 1 controllers that have a hierarchy which is not
// mounted.
func unmounted() []string {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup"))
	if err != nil {
		return nil
	}
	var mounted []string
	for _, m := range mounts {
		mounted = append(mounted, strings.Split(m.VFSOptions, ",")...)
	}
	return lostControllers(string(data), mounted)
}

// lostControllers are the controllers of /proc/self/cgroup that are not among the mount
// options.
func lostControllers(selfCgroup string, mounted []string) []string {
	var lost []string
	for line := range strings.Lines(selfCgroup) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 || fields[1] == "" { // version 2 has no controllers here
			continue
		}
		for c := range strings.SplitSeq(fields[1], ",") {
			if !slices.Contains(mounted, c) {
				lost = append(lost, c)
			}
		}
	}
	return lost
}

func words(file string) []string {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return strings.Fields(string(data))
}
