// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/isolate-shim/isolate/integration/vm/wire"
)

const (
	hostDir    = "/host"    // the host's root, read-only
	scratchDir = "/scratch" // the ext4 disk
	rootDir    = "/newroot"
)

// plan9 holds the longest message in bytes; much smaller ones are slower.
const plan9 = "trans=virtio,version=9p2000.L,msize=512000"

// stores are directories of programs that mount overlays on what they keep.
// That does not work on the root, which is an overlay itself.
var stores = []string{"containerd", "containers", "docker", "isolate", "kubelet"}

// makeRoot makes the host's root writable without changing it, and moves there.
func makeRoot(job wire.Job) error {
	err := mountAll([]mountPoint{
		{source: wire.HostTag, target: hostDir, kind: "9p", flags: syscall.MS_RDONLY, data: plan9 + ",cache=loose"},
		{source: "/dev/vda", target: scratchDir, kind: "ext4", flags: syscall.MS_NOATIME},
	})
	if err != nil {
		return err
	}
	for _, dir := range []string{"upper", "work", "vm/tmp"} {
		if err := os.MkdirAll(filepath.Join(scratchDir, dir), 0o755); err != nil {
			return fmt.Errorf("make scratch directory: %w", err)
		}
	}
	if err := os.Chmod(filepath.Join(scratchDir, "vm/tmp"), 0o777|os.ModeSticky); err != nil {
		return fmt.Errorf("make scratch directory: %w", err)
	}
	overlay := "lowerdir=" + hostDir + ",upperdir=" + scratchDir + "/upper,workdir=" + scratchDir + "/work"
	list := []mountPoint{
		{source: "root", target: rootDir, kind: "overlay", flags: syscall.MS_NOATIME, data: overlay},
		{source: scratchDir + "/vm", target: rootDir + "/vm", flags: syscall.MS_BIND},
	}
	for _, name := range stores {
		dir := filepath.Join(scratchDir, "vm/stores", name)
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("make store: %w", err)
		}
		list = append(list, mountPoint{source: dir, target: filepath.Join(rootDir, "var/lib", name), flags: syscall.MS_BIND})
	}
	for _, share := range job.Shares {
		// Not loose: what the guest writes has to be on the host when it ends.
		list = append(list, mountPoint{source: share.Tag, target: rootDir + share.Path, kind: "9p", data: plan9 + ",cache=mmap"})
	}
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		list = append(list, mountPoint{source: dir, target: rootDir + dir, flags: syscall.MS_MOVE})
	}
	if err := mountAll(list); err != nil {
		return err
	}
	program, err := os.ReadFile("/init")
	if err != nil {
		return fmt.Errorf("read own program: %w", err)
	}
	if err := switchRoot(rootDir); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	run := mountPoint{source: "tmpfs", target: "/run", kind: "tmpfs", flags: syscall.MS_NOSUID | syscall.MS_NODEV, data: "mode=755"}
	if err := run.mount(); err != nil {
		return err
	}
	text, err := json.Marshal(job)
	if err != nil {
		return fmt.Errorf("encode job: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(programPath), 0o755); err != nil {
		return fmt.Errorf("keep own program: %w", err)
	}
	if err := os.WriteFile(programPath, program, 0o755); err != nil {
		return fmt.Errorf("keep own program: %w", err)
	}
	if err := os.WriteFile(jobPath, text, 0o600); err != nil {
		return fmt.Errorf("keep job: %w", err)
	}
	return nil
}

// switchRoot makes dir the root. The initramfs cannot be unmounted, which is
// why it is covered instead of pivoted away.
func switchRoot(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := syscall.Mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return err
	}
	if err := syscall.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}
