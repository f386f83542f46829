// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/cache"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// Install installs packages, and all they depend on, into a directory tree as
// the package manager of a running system would: maintainer scripts run,
// chrooted and in namespaces of their own, with no network and no services. An
// empty tree first gets the essential system. It needs root.
func Install(ctx context.Context, suite Suite, root string, log io.Writer, packages ...string) error {
	archives := filepath.Join(root, "var/cache/apt/archives")
	status := filepath.Join(root, "var/lib/dpkg/status")
	refuse := filepath.Join(root, "usr/sbin/policy-rc.d")
	if _, err := os.Stat(status); errors.Is(err, os.ErrNotExist) {
		if err := bootstrap(ctx, suite, root, status, archives, log); err != nil {
			return fmt.Errorf("install essential packages: %w", err)
		}
	}
	// Tells invoke-rc.d that no service may be started.
	if err := testprogram.Write(refuse, "#!/bin/sh\nexit 101\n"); err != nil {
		return fmt.Errorf("forbid services: %w", err)
	}
	defer os.Remove(refuse)
	defer os.RemoveAll(filepath.Dir(archives))
	if _, err := Download(ctx, suite, status, archives, packages...); err != nil {
		return err
	}
	a, err := open(ctx, suite)
	if err != nil {
		return err
	}
	// apt orders the calls of dpkg; dpkg alone would ignore Pre-Depends.
	argv := slices.Concat(namespaces(filepath.Join(root, "proc")), []string{
		"apt-get", "-y", "-q", "--no-download",
		"-o", "Dir::State::status=" + status, "-o", "Dir::Cache::archives=" + archives,
		"-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "-o", "Debug::NoLocking=1",
		"-o", "DPkg::Chroot-Directory=" + root, "-o", "DPkg::Use-Pty=0",
		"-o", "DPkg::Options::=--force-unsafe-io", "-o", "DPkg::Options::=--force-confnew",
		"install",
	}, packages)
	return cache.Command{Env: append(a.env(), scriptEnv...), Log: log}.Run(ctx, argv...)
}

// bootstrap makes the tree in which a package manager can run: all essential
// packages are unpacked, so that their programs are there, and then installed,
// so that their scripts have run.
func bootstrap(ctx context.Context, suite Suite, root, status, archives string, log io.Writer) error {
	for _, dir := range []string{"dev", "proc", "sys", "tmp", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/cache/apt/archives"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return fmt.Errorf("make root: %w", err)
		}
	}
	if err := errors.Join(os.WriteFile(status, nil, 0o644), devices(root)); err != nil {
		return fmt.Errorf("make root: %w", err)
	}
	debs, err := Download(ctx, suite, status, archives, Essential)
	if err != nil {
		return err
	}
	if err := Unpack(ctx, root, debs...); err != nil {
		return err
	}
	argv := []string{"dpkg", "--force-depends", "--force-unsafe-io", "--force-confnew", "--install"}
	for _, deb := range debs {
		argv = append(argv, "/var/cache/apt/archives/"+filepath.Base(deb))
	}
	if err := Chroot(ctx, root, log, argv...); err != nil {
		return err
	}
	for _, deb := range debs {
		if err := os.Remove(deb); err != nil {
			return fmt.Errorf("remove package: %w", err)
		}
	}
	return nil
}

// Chroot runs a program in a directory tree, in namespaces of its own, with no
// network. What it leaves running is killed.
func Chroot(ctx context.Context, root string, log io.Writer, argv ...string) error {
	// Without --wd the program would start in a directory outside the root.
	unshare := append(namespaces("/proc"), "--root="+root, "--wd=/", "--")
	return cache.Command{Env: scriptEnv, Log: log}.Run(ctx, slices.Concat(unshare, argv)...)
}

// namespaces is a call of unshare(1), which is an essential program.
func namespaces(proc string) []string {
	return []string{"unshare", "--fork", "--kill-child", "--pid", "--mount", "--net", "--ipc", "--uts", "--mount-proc=" + proc}
}

var scriptEnv = []string{
	"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
	"DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true",
	"HOME=/root", "TMPDIR=/tmp",
}

// devices makes the device nodes without which shells and scripts do not work.
func devices(root string) error {
	nodes := map[string][2]uint32{"null": {1, 3}, "zero": {1, 5}, "full": {1, 7}, "random": {1, 8}, "urandom": {1, 9}, "tty": {5, 0}}
	for name, number := range nodes {
		path := filepath.Join(root, "dev", name)
		err := errors.Join(
			unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(number[0], number[1]))),
			os.Chmod(path, 0o666),
		)
		if err != nil {
			return fmt.Errorf("make device %q: %w", path, err)
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(target, filepath.Join(root, "dev", name)); err != nil {
			return fmt.Errorf("make device: %w", err)
		}
	}
	return nil
}
