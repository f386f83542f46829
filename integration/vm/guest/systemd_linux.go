// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/isolate-shim/isolate/integration/vm/wire"
)

// units are written to where those of an administrator would be. The target has
// what every system has, and nothing that is enabled on the host.
var units = map[string]string{
	"vm.target": `[Unit]
Requires=basic.target
Wants=vm-job.service dbus.socket
After=basic.target
AllowIsolate=yes
`,
	"vm-job.service": `[Unit]
After=basic.target dbus.socket
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate
[Service]
ExecStart=` + programPath + ` job
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
LimitMEMLOCK=infinity
OOMPolicy=continue
StandardOutput=journal+console
`,
}

// masked are the units that do work on the host's files which a guest of a
// minute does not need. systemd-tmpfiles-setup alone copied the host's /tmp up,
// to delete it, for more than 80 s.
var masked = []string{
	"apparmor.service", "e2scrub_reap.service", "ldconfig.service", "lvm2-monitor.service",
	"modprobe@configfs.service", "modprobe@dm_mod.service", "modprobe@drm.service", "modprobe@efi_pstore.service", "modprobe@loop.service",
	"systemd-binfmt.service", "systemd-boot-system-token.service", "systemd-firstboot.service",
	"systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "systemd-journal-flush.service",
	"systemd-machine-id-commit.service", "systemd-modules-load.service", "systemd-pcrphase-sysinit.service",
	"systemd-pcrphase.service", "systemd-pstore.service", "systemd-random-seed.service", "systemd-remount-fs.service",
	"systemd-sysctl.service", "systemd-sysusers.service", "systemd-timesyncd.service", "timers.target",
	"systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup.service", "systemd-udev-trigger.service",
	"systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-udevd.service", "systemd-update-done.service",
	"systemd-update-utmp.service", "proc-sys-fs-binfmt_misc.automount", "dev-hugepages.mount", "sys-kernel-config.mount",
}

var errNoSystemd = errors.New("systemd is not installed on this machine, whose root the guest uses")

// startSystemd becomes systemd.
func startSystemd(wire.Job) error {
	const etc = "/etc/systemd/system"
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return fmt.Errorf("make unit directory: %w", err)
	}
	for name, text := range units {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write unit: %w", err)
		}
	}
	for _, name := range masked {
		path := filepath.Join(etc, name)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("mask unit: %w", err)
		}
		if err := os.Symlink("/dev/null", path); err != nil {
			return fmt.Errorf("mask unit: %w", err)
		}
	}
	if err := neutralise(); err != nil {
		return err
	}
	for _, path := range []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"} {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		return fmt.Errorf("run systemd: %w", syscall.Exec(path, []string{path}, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}))
	}
	return errNoSystemd
}

// neutralise takes from the copy of the host's files what would make systemd
// mount the host's disks, believe that it is in a container, where it ignores
// the kernel command line, or set up a machine that boots for the first time.
func neutralise() error {
	if err := os.Remove("/.dockerenv"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove mark of container: %w", err)
	}
	if err := os.WriteFile("/etc/fstab", nil, 0o644); err != nil {
		return fmt.Errorf("empty fstab: %w", err)
	}
	const path = "/etc/machine-id"
	if id, err := os.ReadFile(path); err == nil && len(bytes.TrimSpace(id)) == 32 {
		return nil
	}
	if err := os.WriteFile(path, []byte("76697274756c206d616368696e650000\n"), 0o444); err != nil {
		return fmt.Errorf("write machine id: %w", err)
	}
	return nil
}
