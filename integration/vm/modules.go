// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isolate-shim/isolate/integration/cache"
)

// keptModules are the directories below modules/RELEASE/kernel that are kept.
// Drivers of hardware that no guest has are most of the rest, 300 MB of it,
// and decompressing them is most of the time that a kernel would take.
var keptModules = []string{
	"arch", "block", "crypto", "fs", "kernel", "lib", "mm", "net", "security",
	"drivers/block", "drivers/char", "drivers/crypto", "drivers/md", "drivers/virtio", "drivers/vhost",
	"drivers/net/*.ko*", "drivers/net/bonding", "drivers/net/ipvlan", "drivers/net/team",
	"drivers/net/vxlan", "drivers/net/wireguard", "drivers/net/ppp",
}

// bootModules are what init loads before it can see the host's root, followed
// by those whose device nodes have to be there before anybody opens them. What
// a kernel has built in, or not at all, is left out.
var bootModules = []string{
	"virtio_pci", "virtio_blk", "virtio_console",
	"crc32c_generic", "crc32c_intel", "ext4", // looked up by name, not by symbol
	"9pnet_virtio", "9p", "overlay",
	"fuse", "tun", "loop",
}

// prepareModules removes what is not kept, decompresses the rest, and writes
// modules.dep and its like.
func prepareModules(ctx context.Context, w cache.Work, tools unpacked, release string) error {
	dir := filepath.Join(w.Dir, modulesName, release)
	if err := pruneModules(filepath.Join(dir, "kernel"), keptModules); err != nil {
		return err
	}
	// Leftovers of packaging: a link to a build directory, a compressed image.
	for _, name := range []string{"build", "source", "vmlinuz", "System.map", "config"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	compressed, err := findModules(dir, ".ko.xz")
	if err != nil {
		return err
	}
	command := cache.Command{Log: w.Log}
	for batch := range slices.Chunk(compressed, 100) {
		if err := command.Run(ctx, tools.argv("usr/bin/xz", append([]string{"-d"}, batch...)...)...); err != nil {
			return err
		}
	}
	return command.Run(ctx, tools.busybox(), "depmod", "-b", w.Dir, "-a", release)
}

func findModules(dir, suffix string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && strings.HasSuffix(path, suffix) {
			found = append(found, path)
		}
		return err
	})
	return found, err
}

// pruneModules removes all modules below dir that match none of the patterns.
// A pattern is a directory, or has a wildcard in its last element.
func pruneModules(dir string, patterns []string) error {
	modules, err := findModules(dir, "")
	if err != nil {
		return err
	}
	for _, module := range modules {
		name, err := filepath.Rel(dir, module)
		if err != nil {
			return err
		}
		if keeps(patterns, name) {
			continue
		}
		if err := os.Remove(module); err != nil {
			return err
		}
	}
	return nil
}

func keeps(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if strings.HasPrefix(name, pattern+"/") {
			return true
		}
		match, err := filepath.Match(pattern, name)
		return err == nil && match
	})
}

// loadOrder returns the files of modules and of all they depend on, in an order
// in which they can be loaded. The paths are those of modules.dep.
//
// modulesDep is the content of modules.dep, which lists dependencies, direct or
// all of them, behind each module.
func loadOrder(modulesDep string, names []string) ([]string, error) {
	depends := map[string][]string{}
	files := map[string]string{}
	for line := range strings.Lines(modulesDep) {
		file, list, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			return nil, fmt.Errorf("modules.dep has line %q, want a colon", line)
		}
		depends[file] = strings.Fields(list)
		files[moduleName(file)] = file
	}
	var order []string
	done := map[string]bool{}
	var add func(file string)
	add = func(file string) {
		if done[file] {
			return
		}
		done[file] = true
		for _, dependency := range slices.Backward(depends[file]) {
			add(dependency)
		}
		order = append(order, file)
	}
	for _, name := range names {
		if file, ok := files[name]; ok {
			add(file)
		}
	}
	return order, nil
}

// moduleName is the name that the kernel knows the module of a file by.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
