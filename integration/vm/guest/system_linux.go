// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"github.com/isolate-shim/isolate/integration/vm/wire"
)

// prepareRoot makes the copy of the host's root a system that runs.
func prepareRoot(job wire.Job) error {
	steps := []struct {
		what string
		do   func() error
	}{
		{"mount kernel file systems", func() error { return mountRest(job) }},
		{"complete /dev", linkDevices},
		{"provide modules", func() error { return provideModules(job) }},
		{"set host name", func() error { return syscall.Sethostname([]byte("vm")) }},
		{"bring up loopback", loopbackUp},
		{"raise file limit", raiseFileLimit},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

func mountRest(job wire.Job) error {
	list := []mountPoint{
		{source: "devpts", target: "/dev/pts", kind: "devpts", flags: syscall.MS_NOSUID | syscall.MS_NOEXEC, data: "gid=5,mode=620,ptmxmode=666"},
		{source: "tmpfs", target: "/dev/shm", kind: "tmpfs", flags: syscall.MS_NOSUID | syscall.MS_NODEV},
		{source: "mqueue", target: "/dev/mqueue", kind: "mqueue", flags: secure, optional: true},
		{source: "securityfs", target: "/sys/kernel/security", kind: "securityfs", flags: secure, optional: true},
		{source: "debugfs", target: "/sys/kernel/debug", kind: "debugfs", flags: secure, optional: true},
		{source: "tracefs", target: "/sys/kernel/tracing", kind: "tracefs", flags: secure, optional: true},
		{source: "bpf", target: "/sys/fs/bpf", kind: "bpf", flags: secure, optional: true},
		{source: "fusectl", target: "/sys/fs/fuse/connections", kind: "fusectl", flags: secure, optional: true},
	}
	if err := mountAll(list); err != nil {
		return err
	}
	if job.Systemd {
		// It mounts its own cgroups, by the kernel command line.
		return nil
	}
	if err := mountCgroups(job.Cgroup); err != nil {
		return err
	}
	// As systemd does it: mounts propagate unless somebody says otherwise.
	return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, "")
}

func mountCgroups(version string) error {
	const root = "/sys/fs/cgroup"
	if version == "v2" {
		m := mountPoint{source: "cgroup2", target: root, kind: "cgroup2", flags: secure, data: "nsdelegate,memory_recursiveprot"}
		if err := m.mount(); err != nil {
			return err
		}
		controllers, err := os.ReadFile(root + "/cgroup.controllers")
		if err != nil {
			return err
		}
		for _, name := range strings.Fields(string(controllers)) {
			if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+"+name), 0); err != nil {
				return fmt.Errorf("enable cgroup controller %q: %w", name, err)
			}
		}
		return nil
	}
	list := []mountPoint{{source: "tmpfs", target: root, kind: "tmpfs", flags: secure, data: "mode=755"}}
	table, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line) // name hierarchy groups enabled
		if len(fields) == 4 && !strings.HasPrefix(line, "#") && fields[3] == "1" {
			list = append(list, mountPoint{source: "cgroup", target: root + "/" + fields[0], kind: "cgroup", flags: secure, data: fields[0]})
		}
	}
	list = append(list, mountPoint{source: "cgroup", target: root + "/systemd", kind: "cgroup", flags: secure, data: "none,name=systemd"})
	return mountAll(list)
}

// linkDevices does for /dev what udev would.
func linkDevices() error {
	for _, path := range []string{"/dev/fuse", "/dev/net/tun"} {
		if err := os.Chmod(path, 0o666); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, "/dev/"+name); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// provideModules lets modprobe, and with it the kernel itself, load modules.
// Programs of the host's own are left as they are.
func provideModules(job wire.Job) error {
	links := map[string]string{"/usr/lib/modules/" + job.Release: job.Modules}
	for _, name := range []string{"modprobe", "insmod", "rmmod", "lsmod"} {
		links["/usr/sbin/"+name] = job.Busybox
	}
	for path, target := range links {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(target, path); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// loopbackUp sets the flag of interface lo, by netdevice(7).
func loopbackUp() error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(socket) }()
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_UP | syscall.IFF_RUNNING}
	copy(request.name[:], "lo")
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(socket), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}

// raiseFileLimit sets what systemd and Docker give their services.
func raiseFileLimit() error {
	limit := syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}
