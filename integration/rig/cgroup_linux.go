// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchy is one mounted cgroup hierarchy.
type hierarchy struct {
	path string
	v2   bool
	// options of the mount: controllers or a name, for version 1.
	options string
}

// hierarchies lists the machine's. The cgroup2 hierarchy of a hybrid machine is
// left out.
func hierarchies() ([]hierarchy, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	var list []hierarchy
	for _, m := range mounts {
		switch {
		case m.FSType == "cgroup2" && m.Mountpoint == cgroupRoot:
			return []hierarchy{{path: cgroupRoot, v2: true}}, nil
		case m.FSType == "cgroup" && filepath.Dir(m.Mountpoint) == cgroupRoot:
			list = append(list, hierarchy{path: m.Mountpoint, options: mountOptions(m.VFSOptions)})
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no cgroups are mounted on %q", cgroupRoot)
	}
	return list, nil
}

// mountOptions turns the options of a mounted version 1 hierarchy into those
// that mount it again.
func mountOptions(super string) string {
	var keep []string
	for option := range strings.SplitSeq(super, ",") {
		switch {
		case option == "rw" || option == "ro" || strings.HasPrefix(option, "release_agent="):
		case strings.HasPrefix(option, "name="):
			keep = append(keep, "none", option)
		default:
			keep = append(keep, option)
		}
	}
	return strings.Join(keep, ",")
}

// makeCgroups makes a group of the given name at the top of each hierarchy.
func makeCgroups(name string) error {
	list, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range list {
		if h.v2 {
			if err := delegate(h.path); err != nil {
				return err
			}
		}
		dir := filepath.Join(h.path, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		// A new cpuset group is empty and takes no process.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if value, err := os.ReadFile(filepath.Join(h.path, file)); err == nil && !h.v2 {
				if err := os.WriteFile(filepath.Join(dir, file), value, 0o644); err != nil {
					return fmt.Errorf("fill cgroup: %w", err)
				}
			}
		}
	}
	return nil
}

// joinCgroups moves this process into the groups, so that a new cgroup namespace
// begins there.
func joinCgroups(name string) error {
	list, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range list {
		if err := os.WriteFile(filepath.Join(h.path, name, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// mountCgroups replaces the machine's cgroups by this namespace's.
func mountCgroups() error {
	list, err := hierarchies()
	if err != nil {
		return err
	}
	// By name: entries that are links, such as cpu to cpu,cpuacct.
	links := map[string]string{}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return fmt.Errorf("read cgroups: %w", err)
	}
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join(cgroupRoot, entry.Name())); err == nil {
			links[entry.Name()] = target
		}
	}
	if err := unix.Unmount(cgroupRoot, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount cgroups: %w", err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if list[0].v2 {
		if err := unix.Mount("cgroup2", cgroupRoot, "cgroup2", flags, ""); err != nil {
			return fmt.Errorf("mount cgroup2: %w", err)
		}
		return settleCgroup2()
	}
	if err := unix.Mount("tmpfs", cgroupRoot, "tmpfs", flags, "mode=0755"); err != nil {
		return fmt.Errorf("mount %q: %w", cgroupRoot, err)
	}
	for _, h := range list {
		if err := os.Mkdir(h.path, 0o755); err != nil {
			return fmt.Errorf("mount cgroup: %w", err)
		}
		if err := unix.Mount("cgroup", h.path, "cgroup", flags, h.options); err != nil {
			return fmt.Errorf("mount cgroup %q with %q: %w", h.path, h.options, err)
		}
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(cgroupRoot, name)); err != nil {
			return fmt.Errorf("link cgroup: %w", err)
		}
	}
	return nil
}

// settleCgroup2 moves the rig's own processes out of the top group, because one
// with processes cannot have controllers for its children.
func settleCgroup2() error {
	leaf := filepath.Join(cgroupRoot, "init")
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	for _, pid := range []string{"1", "0"} {
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(pid), 0o644); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return delegate(cgroupRoot)
}

// delegate enables all controllers of a cgroup2 group for its children.
func delegate(dir string) error {
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read controllers: %w", err)
	}
	for controller := range strings.FieldsSeq(string(controllers)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("enable controller %q in %q: %w", controller, dir, err)
		}
	}
	return nil
}

// removeCgroups ends what is left in the groups, and removes them and all below.
func removeCgroups(name string) error {
	list, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range list {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		group := filepath.Join(h.path, name)
		errs = append(errs, killAll(ctx, group), cgroupfs.Remove(ctx, group))
		cancel()
	}
	return errors.Join(errs...)
}

// killAll kills what is in a group and below, until nothing is.
func killAll(ctx context.Context, group string) error {
	for {
		pids, err := cgroupfs.Processes(ctx, group)
		if len(pids) == 0 || err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		for _, pid := range pids {
			if pid > 0 && pid != os.Getpid() {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if err := cgroupfs.Thaw(ctx, group); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// groupsBelow lists all groups below a directory, parents first.
func groupsBelow(top string) ([]string, error) {
	var groups []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != top {
			return nil // gone meanwhile
		}
		if err != nil {
			return err
		}
		if entry.IsDir() && path != top {
			groups = append(groups, path[len(top)+1:])
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	return groups, nil
}
