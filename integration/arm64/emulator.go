// SPDX-License-Identifier: Apache-2.0

package arm64

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/isolate-shim/isolate/integration/apt"
	"github.com/isolate-shim/isolate/integration/cache"
)

const (
	emulatorItem    = "qemu-user-arm64"
	emulatorPackage = "qemu-user-static"
	emulatorProgram = "qemu-aarch64-static"
)

func init() {
	cache.Register(cache.Item{Name: emulatorItem, Resolve: resolveEmulator, Make: makeEmulator})
}

func resolveEmulator(ctx context.Context) (cache.Inputs, error) {
	closure, err := apt.Resolve(ctx, apt.Bookworm, emulatorPackage)
	if err != nil {
		return cache.Inputs{}, err
	}
	version := closure.Version(emulatorPackage)
	return cache.Inputs{Version: version, Parts: []string{version}}, nil
}

// makeEmulator keeps one program of a package that has one for every processor.
func makeEmulator(ctx context.Context, w cache.Work) error {
	debs, err := apt.Download(ctx, apt.Bookworm, "", w.Dir+".debs", emulatorPackage)
	if err != nil {
		return err
	}
	root := w.Dir + ".root"
	if err := os.Mkdir(root, 0o755); err != nil {
		return fmt.Errorf("unpack emulator: %w", err)
	}
	if err := apt.Unpack(ctx, root, debs...); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(root, "usr/bin", emulatorProgram), filepath.Join(w.Dir, emulatorProgram)); err != nil {
		return fmt.Errorf("unpack emulator: %w", err)
	}
	return os.RemoveAll(root)
}

// emulator returns the program that runs programs for arm64.
func emulator(ctx context.Context) (string, error) {
	dir, err := cache.Get(ctx, emulatorItem)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, emulatorProgram), nil
}
