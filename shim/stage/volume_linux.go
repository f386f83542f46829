// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/spec"
)

// Volume stages one volume and returns the path of its clone. If a file system
// in it cannot be idmapped, its clone is a plain one and a warning says so; with
// requireIdmap that is an error instead.
func (s *Stage) Volume(ctx context.Context, v spec.Volume, requireIdmap bool) (path string, warnings []string, err error) {
	clone, unmapped, err := s.clone(ctx, v)
	if err != nil {
		return "", nil, fmt.Errorf("volume %s: %w", v.Destination, err)
	}
	defer clone.Close()
	// Files of the kernel's own belong to the host's root by nature; nobody expects
	// them to be mapped.
	unmapped = slices.DeleteFunc(unmapped, func(u mount.Unmapped) bool { return kernelOwned[u.FSType] })
	if len(unmapped) > 0 {
		reason := fmt.Sprintf("volume %s: %v", v.Destination, unmapped[0].Err)
		if n := len(unmapped) - 1; n > 0 {
			reason += fmt.Sprintf(", nor can %d other mounts in it", n)
		}
		if requireIdmap {
			return "", nil, fmt.Errorf("%s; volumes.require_idmap is set, so use a source on another file system: %w", reason, spec.ErrRefused)
		}
		warnings = append(warnings, reason+"; its files keep their host owners and show as nobody unless these are in the container's range")
	}
	path, err = s.target(clone)
	if err == nil {
		err = s.kernel.Attach(clone, path)
	}
	if err != nil {
		return "", nil, fmt.Errorf("volume %s: %w", v.Destination, err)
	}
	s.volumes = append(s.volumes, path)
	return path, warnings, nil
}

// Lock makes the flags of the volumes that were staged so far final, for a
// runtime that hands the container a mount of the host's mount namespace
// instead of a copy; see mount.LockedClones. It makes their submounts
// inseparable too, without which crun 1.8 leaves them out.
func (s *Stage) Lock() error {
	if len(s.volumes) == 0 {
		return nil
	}
	clones, err := mount.LockedClones(s.volumes)
	if err != nil {
		return err
	}
	var errs []error
	for i, clone := range clones {
		path := s.volumes[i]
		errs = append(errs, unix.Unmount(path, unix.MNT_DETACH), s.kernel.Attach(clone, path), clone.Close())
	}
	return errors.Join(errs...)
}

// Flags returns the flags of each staged volume by its path, as mount(8) has
// them: the flags that were asked for, and the source's. They are read from
// mountinfo, because statfs(2) waits for a dead file system.
func (s *Stage) Flags() (map[string][]string, error) {
	if len(s.volumes) == 0 {
		return nil, nil
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(s.dir))
	if err != nil {
		return nil, fmt.Errorf("flags of volumes: %w", err)
	}
	flags := map[string][]string{}
	for _, m := range mounts {
		flags[m.Mountpoint] = slices.DeleteFunc(strings.Split(m.Options, ","), func(o string) bool { return !lasting[o] })
	}
	return flags, nil
}

// lasting are the flags that a runtime could lose. Those of access times stay
// as they are unless a runtime names them (path_mount in fs/namespace.c).
var lasting = map[string]bool{"ro": true, "nosuid": true, "nodev": true, "noexec": true}

func (s *Stage) clone(ctx context.Context, v spec.Volume) (*os.File, []mount.Unmapped, error) {
	switch {
	case v.Kernel != "" && v.Source != "":
		m, err := kernelFS(v)
		return m, nil, err
	case v.Kernel != "":
		v.Source = "/sys" // of the host's network
	}
	// Never shared: crun gives the container this very mount, and what the
	// container mounts below it must not reach the host.
	opts := mount.CloneOptions{Recursive: v.Recursive, Propagation: unix.MS_PRIVATE}
	if v.Propagated {
		opts.Propagation = unix.MS_SLAVE
	}
	var top uint64
	for _, f := range v.Flags {
		if attr, all := attribute(f); all {
			opts.SetAttrs |= attr
		} else {
			top |= attr
		}
	}
	if v.Mapping != nil {
		userns, err := s.Userns(*v.Mapping)
		if err != nil {
			return nil, nil, err
		}
		opts.Userns = userns
	}
	source, err := s.sources.Open(ctx, v.Source)
	if err != nil {
		return nil, nil, err
	}
	defer source.Close()
	var unmapped []mount.Unmapped
	clone, err := bounded(ctx, v.Source, func() (f *os.File, err error) {
		f, unmapped, err = s.kernel.ClonePartial(int(source.Fd()), "", opts)
		return f, err
	})
	if err != nil {
		return nil, nil, explain(err, source)
	}
	if top != 0 {
		var clear uint64
		if top&timeAttrs != 0 {
			clear = unix.MOUNT_ATTR__ATIME
		}
		if clone, err = mount.Restrict(clone, top, clear); err != nil {
			return nil, nil, fmt.Errorf("set flags %v of %q: %w", v.Flags, v.Source, err)
		}
	}
	return clone, unmapped, nil
}

// kernelFS mounts a file system of the kernel in the namespace that it shows.
func kernelFS(v spec.Volume) (*os.File, error) {
	ns, err := os.Open(v.Source)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	var attrs uint64
	for _, f := range v.Flags {
		attrs |= attributes[f]
	}
	return mount.KernelFS(ns, namespaceOf[v.Kernel], v.Kernel, attrs)
}

// namespaceOf are the kinds of namespaces that file systems of the kernel show.
var namespaceOf = map[string]int{"sysfs": unix.CLONE_NEWNET, "mqueue": unix.CLONE_NEWIPC}

// kernelOwned are the file systems that show the kernel's own objects.
var kernelOwned = map[string]bool{
	"proc": true, "sysfs": true, "cgroup": true, "cgroup2": true, "devtmpfs": true, "devpts": true,
	"mqueue": true, "nsfs": true, "debugfs": true, "tracefs": true, "securityfs": true, "bpf": true, "configfs": true,
}

// attribute translates an option of spec.Volume.Flags into an attribute of
// mount_setattr(2), and reports whether it is for the whole tree.
func attribute(option string) (attr uint64, all bool) {
	if a, ok := attributes[option]; ok {
		return a, false
	}
	a, ok := attributes[strings.TrimPrefix(option, "r")]
	return a, ok
}

var attributes = map[string]uint64{
	"ro":          unix.MOUNT_ATTR_RDONLY,
	"nosuid":      unix.MOUNT_ATTR_NOSUID,
	"nodev":       unix.MOUNT_ATTR_NODEV,
	"noexec":      unix.MOUNT_ATTR_NOEXEC,
	"noatime":     unix.MOUNT_ATTR_NOATIME,
	"nodiratime":  unix.MOUNT_ATTR_NODIRATIME,
	"strictatime": unix.MOUNT_ATTR_STRICTATIME,
	"nosymfollow": unix.MOUNT_ATTR_NOSYMFOLLOW,
	"relatime":    unix.MOUNT_ATTR_RELATIME, // zero: the default
}

// timeAttrs are values of one field, which must be cleared to be set
// (mount_setattr(2)).
const timeAttrs = unix.MOUNT_ATTR_NOATIME | unix.MOUNT_ATTR_STRICTATIME
