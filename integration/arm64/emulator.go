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

// The emulator is that of a newer suite than this machine's: with Debian 12's, 7.2, the
// child of fork(2) hangs now and then if the parent has other threads, and openat2(2)
// and fsopen(2) are missing.
const (
	emulatorItem    = "qemu-user-arm64"
	emulatorPackage = "qemu-user"
	emulatorProgram = "qemu-aarch64"
)

func init() {
	cache.Register(cache.Item{Name: emulatorItem, Resolve: resolveEmulator, Make: makeEmulator})
}

func resolveEmulator(ctx context.Context) (cache.Inputs, error) {
	closure, err := apt.Resolve(ctx, apt.Trixie, emulatorPackage)
	if err != nil {
		return cache.Inputs{}, err
	}
	version := closure.Version(emulatorPackage)
	return cache.Inputs{Version: version, Parts: []string{version}}, nil
}

// makeEmulator keeps one program of a package that has one for every processor.
func makeEmulator(ctx context.Context, w cache.Work) error {
	debs, err := apt.Download(ctx, apt.Trixie, "", w.Dir+".debs", emulatorPackage)
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
