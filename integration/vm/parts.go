// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/isolate-shim/isolate/integration/cache"
)

// Parts are what a machine is made of.
type Parts struct {
	emulator unpacked
	tools    unpacked
	program  string
	vmlinux  string
	modules  string // of the release
	release  string
}

// partItem names the item that stands for all that a kernel needs, so that a
// run asks the cache once, and is told the kernel's version in one line.
func partItem(k Kernel) string { return "vm-" + string(k) }

// Names of the links in such an item.
const (
	linkEmulator = "qemu"
	linkTools    = "tools"
	linkGuest    = "guest"
	linkKernel   = "kernel"
)

func init() {
	for _, k := range Kernels {
		parts := map[string]string{linkEmulator: emulatorPackages.item, linkTools: toolPackages.item, linkGuest: guestItem, linkKernel: k.item()}
		cache.Register(cache.Item{
			Name: partItem(k),
			Resolve: func(ctx context.Context) (cache.Inputs, error) {
				return k.partInputs(ctx)
			},
			Make: func(ctx context.Context, w cache.Work) error {
				for link, item := range parts {
					dir, err := cache.Get(ctx, item)
					if err != nil {
						return err
					}
					if err := os.Symlink(filepath.Join("..", filepath.Base(dir)), filepath.Join(w.Dir, link)); err != nil {
						return fmt.Errorf("link part: %w", err)
					}
				}
				return nil
			},
		})
	}
}

func (k Kernel) partInputs(ctx context.Context) (cache.Inputs, error) {
	all := cache.Inputs{}
	for _, resolve := range []func(context.Context) (cache.Inputs, error){
		emulatorPackages.resolve, toolPackages.resolve, resolveGuest, k.resolve,
	} {
		inputs, err := resolve(ctx)
		if err != nil {
			return cache.Inputs{}, err
		}
		all.Parts = append(all.Parts, inputs.Parts...)
		// The last one is the kernel's.
		all.Version = inputs.Version
	}
	return all, nil
}

var (
	errNotAMD64 = errors.New("virtual machines are emulated on amd64 only")
	errNotRoot  = errors.New("virtual machines need root, since they show the machine's own files to the guest's root")
)

// Prepare gets all that machines with a kernel need into the cache. It is called
// by [Run]; by itself it is for doing the slow part where there is a network.
func Prepare(ctx context.Context, k Kernel) (Parts, error) {
	if runtime.GOARCH != "amd64" {
		return Parts{}, errNotAMD64
	}
	if os.Geteuid() != 0 {
		return Parts{}, errNotRoot
	}
	dir, err := cache.Get(ctx, partItem(k))
	if err != nil {
		return Parts{}, err
	}
	// The guest sees the same paths, so that they must not depend on links.
	resolved := map[string]string{}
	for _, link := range []string{linkEmulator, linkTools, linkGuest, linkKernel} {
		if resolved[link], err = filepath.EvalSymlinks(filepath.Join(dir, link)); err != nil {
			return Parts{}, fmt.Errorf("find %s of %q (remove that directory to have it made again): %w", link, dir, err)
		}
	}
	modules := filepath.Join(resolved[linkKernel], modulesName)
	release, err := onlyEntry(modules)
	if err != nil {
		return Parts{}, fmt.Errorf("find kernel release: %w", err)
	}
	return Parts{
		emulator: unpacked{resolved[linkEmulator]},
		tools:    unpacked{resolved[linkTools]},
		program:  filepath.Join(resolved[linkGuest], guestProgram),
		vmlinux:  filepath.Join(resolved[linkKernel], vmlinuxName),
		modules:  filepath.Join(modules, release),
		release:  release,
	}, nil
}
