// SPDX-License-Identifier: Apache-2.0

package lxcfs

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Exec turns this process into an lxcfs that serves its files below a directory, and
// makes the directory if need be. It only returns if that fails.
func Exec(program, dir string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		return fmt.Errorf("run lxcfs: %w: install the package lxcfs", err)
	}
	if err := detachStale(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("run lxcfs: make its directory: %w", err)
	}
	argv := slices.Concat([]string{program, "-f"}, strings.Fields(Options), []string{"-p", "/run/lxcfs.pid", dir})
	return fmt.Errorf("run lxcfs: exec %s: %w", path, unix.Exec(path, argv, os.Environ()))
}

// detachStale lazily unmounts what an earlier lxcfs has mounted on a directory. It does
// not stat the directory: a dead FUSE server answers ENOTCONN, and one that hangs does
// not answer at all.
func detachStale(dir string) error {
	for {
		mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
		if err != nil {
			return fmt.Errorf("read mounts: %w", err)
		}
		if len(mounts) == 0 || mounts[0].FSType != fsType {
			return nil
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount what lxcfs left on %s: %w", dir, err)
		}
	}
}
