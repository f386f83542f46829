// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/feature"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/shim/config"
)

// volumeDirs are where bind mounts usually come from. Those that do not exist
// are not looked at.
var volumeDirs = []string{"/etc", "/run", "/var/lib/docker", "/var/lib/kubelet"}

// fileSystems checks that images and volumes can be idmapped where they are.
func fileSystems(r *Report, cfg config.Config, roots []string) {
	roots = slices.Compact(slices.Sorted(slices.Values(roots)))
	for _, root := range roots {
		what := "images in " + root
		dir := existing(root)
		if cfg.Rootfs.Method == config.RootfsChown {
			r.ok(what, "are not mapped but chowned, as rootfs.method says")
			continue
		}
		fallback := cfg.Rootfs.Fallback == config.FallbackChown
		switch err := mount.MappableAt(dir).Check(); {
		case err == nil && dir != root:
			r.note(what, "", "it is not there yet; what is made in %s can be idmapped", dir)
			overlay(r, cfg, dir, dir)
		case err == nil:
			r.ok(what, "can be idmapped")
			overlay(r, cfg, root, dir)
		case errors.Is(err, feature.ErrNotSupported) && fallback:
			r.bad(Degraded, what, "boot Linux 5.19 or later and keep images on ext4, xfs or btrfs, to start containers at once", "are chowned for each container, as rootfs.fallback says: %v", err)
		case errors.Is(err, feature.ErrNotSupported):
			r.bad(Failed, what, "move it to ext4, xfs, btrfs or another file system that can be idmapped (root in containerd's configuration, data-root in Docker's), or set rootfs.fallback = \"chown\"", "%v", err)
		default:
			r.bad(Failed, what, "run it with all of root's capabilities, outside of containers", "%v", err)
		}
	}
	for _, dir := range volumeDirs {
		if _, err := os.Stat(dir); err != nil || slices.Contains(roots, dir) {
			continue
		}
		what := "volumes from " + dir
		switch err := mount.MappableAt(dir).Check(); {
		case err == nil:
			r.ok(what, "can be idmapped")
		case cfg.Volumes.RequireIDMap:
			r.bad(Degraded, what, "move them to another file system, or set volumes.require_idmap = false", "containers with a volume from there are refused: %v", err)
		default:
			r.bad(Degraded, what, "move them to a file system that can be idmapped, or make them world-accessible", "they are bound without a mapping, owned by nobody inside: %v", err)
		}
	}
}

// overlay checks the methods of building a root file system on one directory.
func overlay(r *Report, cfg config.Config, root, dir string) {
	what := "overlay in " + root
	// The snapshotter's directory may be a mount of its own.
	if s := filepath.Join(root, "io.containerd.snapshotter.v1.overlayfs"); existing(s) == s {
		dir = s
	}
	var works []string
	var errs []error
	for _, m := range []rootfs.Method{rootfs.MethodDetached, rootfs.MethodPrivate} {
		if err := rootfs.OverlayBy(m, dir).Check(); err != nil {
			errs = append(errs, err)
		} else {
			works = append(works, m.String())
		}
	}
	forced := string(cfg.Rootfs.Method)
	switch {
	case cfg.Rootfs.Method != config.RootfsAuto && !slices.Contains(works, forced):
		r.bad(Failed, what, "set rootfs.method = \"auto\"", "rootfs.method = %q does not work here: %v", forced, errors.Join(errs...))
	case len(works) == 0 && cfg.Rootfs.Fallback == config.FallbackChown:
		r.bad(Degraded, what, "boot Linux 5.19 or later, to start containers at once", "images are chowned for each container, as rootfs.fallback says: %v", errors.Join(errs...))
	case len(works) == 0:
		r.bad(Failed, what, "look into the kernel log (dmesg); it takes overlayfs of Linux 5.19 or later, and images on ext4, xfs or btrfs", "no method works: %v", errors.Join(errs...))
	default:
		beneath := "at once"
		if mount.AttachableBeneath("/tmp").Check() != nil {
			beneath = "in two steps"
		}
		r.ok(what, "method %s; Docker's mounts are replaced %s", strings.Join(works, " and "), beneath)
	}
}

// existing is the path or the nearest directory above it that exists.
func existing(path string) string {
	for path != "/" {
		if _, err := os.Stat(path); err == nil {
			return path
		}
		path = filepath.Dir(path)
	}
	return path
}

// count is "1 range" or "5 ranges".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
