// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/isolate-shim/isolate/integration/cache"
)

// guestSource is the program that is init in the guest. It is embedded because
// the runner may be called from any directory; that is also what keeps it to
// the standard library.
//
//go:embed guest/*.go wire/wire.go
var guestSource embed.FS

const (
	guestItem    = "vm-guest"
	guestProgram = "guest"
	guestPackage = "integration/vm"
	guestModule  = "module github.com/isolate-shim/isolate\n\ngo 1.26\n"
)

func init() {
	cache.Register(cache.Item{Name: guestItem, Resolve: resolveGuest, Make: makeGuest})
}

func resolveGuest(context.Context) (cache.Inputs, error) {
	parts := []string{runtime.Version(), guestModule}
	err := eachSource(func(path string, text []byte) error {
		parts = append(parts, path, string(text))
		return nil
	})
	return cache.Inputs{Version: runtime.Version(), Parts: parts}, err
}

func makeGuest(ctx context.Context, w cache.Work) error {
	module := filepath.Join(filepath.Dir(w.Dir), "module")
	err := eachSource(func(path string, text []byte) error {
		file := filepath.Join(module, guestPackage, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		return os.WriteFile(file, text, 0o644)
	})
	if err != nil {
		return fmt.Errorf("write guest program: %w", err)
	}
	if err := os.WriteFile(filepath.Join(module, "go.mod"), []byte(guestModule), 0o644); err != nil {
		return fmt.Errorf("write guest program: %w", err)
	}
	command := cache.Command{
		Dir: module,
		Env: []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=-buildvcs=false", "GOWORK=off"},
		Log: w.Log,
	}
	return command.Run(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w",
		"-o", filepath.Join(w.Dir, guestProgram), "./"+guestPackage+"/guest")
}

func eachSource(do func(path string, text []byte) error) error {
	return fs.WalkDir(guestSource, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := guestSource.ReadFile(path)
		if err != nil {
			return err
		}
		return do(path, text)
	})
}
