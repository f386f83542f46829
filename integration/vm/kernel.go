// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isolate-shim/isolate/integration/apt"
	"github.com/isolate-shim/isolate/integration/cache"
)

// Kernel is a kernel series that a Debian release has, such as "6.12".
type Kernel string

// The kernels that can be run.
const (
	Linux510 Kernel = "5.10"
	Linux61  Kernel = "6.1"
	Linux612 Kernel = "6.12"
	// Linux7 is whatever the next Debian release has now.
	Linux7 Kernel = "7.x"
)

// Kernels lists all of them, oldest first.
var Kernels = []Kernel{Linux510, Linux61, Linux612, Linux7}

var kernelSuites = map[Kernel]apt.Suite{
	Linux510: apt.Bullseye,
	Linux61:  apt.Bookworm,
	Linux612: apt.Trixie,
	Linux7:   apt.Forky,
}

// metapackage depends on the newest kernel of a suite. Kernel packages have
// their version in their name, and only the newest is in the archive. It is the
// generic flavour: the one for clouds has no 9p.
const metapackage = "linux-image-amd64"

const (
	vmlinuxName = "vmlinux"
	modulesName = "lib/modules" // holds one directory, named after the release
)

func (k Kernel) item() string { return "vm-kernel-" + string(k) }

func init() {
	for _, k := range Kernels {
		cache.Register(cache.Item{Name: k.item(), Resolve: k.resolve, Make: k.make})
	}
}

// resolve has the list of kept modules among its parts, since the content
// depends on it.
func (k Kernel) resolve(ctx context.Context) (cache.Inputs, error) {
	closure, err := apt.Resolve(ctx, kernelSuites[k], metapackage)
	if err != nil {
		return cache.Inputs{}, err
	}
	parts := slices.DeleteFunc(closure.Strings(), func(p string) bool { return !isKernelPackage(p) })
	return cache.Inputs{
		Version: closure.Version(metapackage),
		Parts:   slices.Concat(parts, keptModules),
	}, nil
}

// isKernelPackage tells the packages with files of the kernel from those that
// their installation needs. Later releases split the image into a binary and
// modules.
func isKernelPackage(name string) bool {
	return slices.ContainsFunc([]string{"linux-image-", "linux-binary-", "linux-modules-"}, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

func (k Kernel) make(ctx context.Context, w cache.Work) error {
	dir, err := cache.Get(ctx, toolPackages.item)
	if err != nil {
		return err
	}
	tools := unpacked{dir}
	work := filepath.Dir(w.Dir)
	root := filepath.Join(work, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return fmt.Errorf("make kernel: %w", err)
	}
	if err := unpackOnly(ctx, kernelSuites[k], work, root, isKernelPackage, metapackage); err != nil {
		return err
	}
	modules := filepath.Join(w.Dir, modulesName)
	if err := os.Mkdir(filepath.Dir(modules), 0o755); err != nil {
		return fmt.Errorf("make kernel: %w", err)
	}
	if err := os.Rename(filepath.Join(root, "usr/lib/modules"), modules); err != nil {
		return fmt.Errorf("find modules: %w", err)
	}
	release, err := onlyEntry(modules)
	if err != nil {
		return fmt.Errorf("find kernel release: %w", err)
	}
	image, err := findImage(filepath.Join(root, "boot/vmlinuz-"+release), filepath.Join(modules, release, "vmlinuz"))
	if err != nil {
		return err
	}
	if err := extractVmlinux(ctx, tools, image, filepath.Join(w.Dir, vmlinuxName)); err != nil {
		return fmt.Errorf("extract kernel from %q: %w", filepath.Base(image), err)
	}
	if err := prepareModules(ctx, w, tools, release); err != nil {
		return fmt.Errorf("prepare modules: %w", err)
	}
	return nil
}

// unpackOnly unpacks those packages of a closure that are wanted. For apt the
// others are installed, so that they are not even downloaded.
func unpackOnly(ctx context.Context, suite apt.Suite, work, root string, wanted func(name string) bool, packages ...string) error {
	closure, err := apt.Resolve(ctx, suite, packages...)
	if err != nil {
		return err
	}
	status := filepath.Join(work, "status")
	if err := os.WriteFile(status, []byte(installed(closure, wanted)), 0o644); err != nil {
		return fmt.Errorf("write package status: %w", err)
	}
	debs, err := apt.Download(ctx, suite, status, filepath.Join(work, "debs"), packages...)
	if err != nil {
		return err
	}
	return apt.Unpack(ctx, root, debs...)
}

// installed is a dpkg status file with all packages but the wanted ones.
func installed(closure apt.Closure, wanted func(name string) bool) string {
	var text strings.Builder
	for _, p := range closure {
		if !wanted(p.Name) {
			fmt.Fprintf(&text, "Package: %s\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: allowed\nVersion: %s\nMaintainer: none\nDescription: stand-in\n\n", p.Name, p.Version)
		}
	}
	return text.String()
}

func onlyEntry(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) != 1 {
		return "", fmt.Errorf("%q has %d entries, want one", dir, len(entries))
	}
	return entries[0].Name(), nil
}

func findImage(paths ...string) (string, error) {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		} else if !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("find kernel image: %w", err)
		}
	}
	return "", fmt.Errorf("no kernel image at any of %q", paths)
}
