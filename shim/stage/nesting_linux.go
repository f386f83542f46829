// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/spec"
)

// Devices makes device nodes owned by the container's ids, and returns where
// each is staged.
func (s *Stage) Devices(devices []spec.Device, m idmap.Mapping) (map[string]string, error) {
	out := make(map[string]string, len(devices))
	for _, d := range devices {
		uid, okUID := m.UIDToHost(idmap.ContainerID(d.UID))
		gid, okGID := m.GIDToHost(idmap.ContainerID(d.GID))
		if !okUID || !okGID {
			return nil, fmt.Errorf("device %s: its owner %d:%d is outside the container's id range: %w", d.Path, d.UID, d.GID, spec.ErrRefused)
		}
		path, err := s.entry()
		if err != nil {
			return nil, err
		}
		kind := uint32(unix.S_IFCHR)
		if d.Type == "b" {
			kind = unix.S_IFBLK
		}
		dev := unix.Mkdev(uint32(d.Major), uint32(d.Minor)) //nolint:gosec // the kernel's device numbers are 32 bits
		if err := s.kernel.Mknod(path, kind|uint32(d.Mode.Perm()), int(dev)); err != nil {
			return nil, fmt.Errorf("make device %s (%d:%d): %w", d.Path, d.Major, d.Minor, err)
		}
		if err := s.own(path, uid, gid, d.Mode.Perm()); err != nil {
			return nil, err
		}
		out[d.Path] = path
	}
	return out, nil
}

// Hidden makes the directory behind which the spare proc and sysfs are mounted:
// without any permission, so that only the container's root can pass.
func (s *Stage) Hidden(m idmap.Mapping) (string, error) {
	owner, ok := m.Root()
	if !ok {
		return "", fmt.Errorf("the container's id mapping has no root: %w", spec.ErrRefused)
	}
	path, err := s.entry()
	if err != nil {
		return "", err
	}
	for _, dir := range []string{path, filepath.Join(path, "proc"), filepath.Join(path, "sys")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return "", fmt.Errorf("make directory for spare file systems: %w", err)
		}
		if err := s.kernel.Chown(dir, int(owner.UID), int(owner.GID)); err != nil {
			return "", fmt.Errorf("make directory for spare file systems: %w", err)
		}
	}
	return path, os.Chmod(path, 0)
}

// Units makes the directory of systemd units that are masked.
func (s *Stage) Units(m idmap.Mapping) (string, error) {
	owner, ok := m.Root()
	if !ok {
		return "", fmt.Errorf("the container's id mapping has no root: %w", spec.ErrRefused)
	}
	path, err := s.entry()
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return "", fmt.Errorf("make directory of units: %w", err)
	}
	for _, unit := range spec.MaskedUnits {
		link := filepath.Join(path, unit)
		if err := os.Symlink("/dev/null", link); err != nil {
			return "", fmt.Errorf("mask unit: %w", err)
		}
		if err := s.kernel.Chown(link, int(owner.UID), int(owner.GID)); err != nil {
			return "", fmt.Errorf("mask unit: %w", err)
		}
	}
	return path, s.own(path, owner.UID, owner.GID, 0o755)
}

// StandIn is a file that stands in for a setting of the kernel, as a detached
// mount.
type StandIn struct {
	Name  string // below the container's root
	Mount *os.File
}

// setting is a file with a setting of the kernel, and the programs for which
// alone a stand-in is wanted; any if there are none.
type setting struct {
	path     string
	programs []string
}

// settings are what kubelet, k3s and kube-proxy insist on writing although the
// kernel gives them to the host alone (kubelet: "open
// /proc/sys/kernel/panic: permission denied" is fatal; so is nf_conntrack_max for
// kube-proxy, and the size of its hash table, which it looks at next).
//
// Those below net are other files for each network namespace. A mount on one
// shows in the mount table of a sandbox with a network of its own, but not at
// its path, so that bwrap --unshare-all --ro-bind / / fails there.
var settings = []setting{
	{path: "/proc/sys/vm/overcommit_memory"},
	{path: "/proc/sys/vm/panic_on_oom"},
	{path: "/proc/sys/vm/max_map_count"},
	{path: "/proc/sys/kernel/panic"},
	{path: "/proc/sys/kernel/panic_on_oops"},
	{path: "/proc/sys/kernel/keys/root_maxkeys"},
	{path: "/proc/sys/kernel/keys/root_maxbytes"},
	{path: "/proc/sys/net/netfilter/nf_conntrack_max", programs: conntrack},
	{path: "/sys/module/nf_conntrack/parameters/hashsize", programs: conntrack},
}

// conntrack are the programs that size the table of connections.
var conntrack = []string{"kube-proxy", "k3s", "rke2", "k0s"}

// StandIns makes a small writable file with the host's value for every setting
// that programs insist on writing. The container's root owns them; the host's
// values stay as they are.
func (s *Stage) StandIns(programs *Programs, m idmap.Mapping) (_ []StandIn, retErr error) {
	owner, ok := m.Root()
	if !ok {
		return nil, fmt.Errorf("the container's id mapping has no root: %w", spec.ErrRefused)
	}
	var out []StandIn
	defer func() {
		if retErr != nil {
			for _, f := range out {
				retErr = errors.Join(retErr, f.Mount.Close())
			}
		}
	}()
	for _, wanted := range settings {
		if len(wanted.programs) > 0 {
			used, err := programs.Any(wanted.programs...)
			if err != nil {
				return nil, fmt.Errorf("stand-in for %s: %w", wanted.path, err)
			}
			if !used {
				continue
			}
		}
		value, err := os.ReadFile(wanted.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without it; nothing will write it
		}
		if err != nil {
			return nil, fmt.Errorf("read setting: %w", err)
		}
		path, err := s.entry()
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, value, 0o600); err != nil {
			return nil, fmt.Errorf("write stand-in for %s: %w", wanted.path, err)
		}
		if err := s.own(path, owner.UID, owner.GID, 0o644); err != nil {
			return nil, err
		}
		clone, err := s.kernel.CloneTree(-1, path, mount.CloneOptions{SetAttrs: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC})
		if err != nil {
			return nil, fmt.Errorf("stand-in for %s: %w", wanted.path, err)
		}
		out = append(out, StandIn{Name: wanted.path[1:], Mount: clone})
	}
	return out, nil
}

func (s *Stage) own(path string, uid, gid idmap.HostID, mode os.FileMode) error {
	if err := s.kernel.Chown(path, int(uid), int(gid)); err != nil {
		return fmt.Errorf("give to the container: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil { // after chown, and whatever the umask is
		return fmt.Errorf("give to the container: %w", err)
	}
	return nil
}

// entry returns a new name on the staging tmpfs.
func (s *Stage) entry() (string, error) {
	if err := s.mount(); err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, strconv.Itoa(s.next))
	s.next++
	return path, nil
}
