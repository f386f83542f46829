// SPDX-License-Identifier: Apache-2.0

// Package attacker builds the programs that attack from inside a container. Their
// source is beside the tables that judge them, in package escape.
package attacker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/isolate-shim/isolate/integration/cache"
)

// The programs, by their directory in package escape.
const (
	Inside   = "inside"   // tries the ways out
	Capacity = "capacity" // takes what there is
)

// source is seen from the test packages beside this one.
const source = "../escape/"

func init() {
	for _, name := range []string{Inside, Capacity} {
		cache.Register(cache.Item{Name: item(name), Resolve: resolve, Make: func(ctx context.Context, w cache.Work) error {
			command := cache.Command{Env: []string{"CGO_ENABLED=0"}, Log: w.Log}
			return command.Run(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(w.Dir, name), source+name)
		}})
	}
}

// item names a program among the cached things: it is built outside the rig, and
// once.
func item(name string) string { return "isolate-escape-" + name }

func resolve(context.Context) (cache.Inputs, error) {
	files, err := filepath.Glob(source + "[ci]*/*.go")
	if err != nil {
		return cache.Inputs{}, fmt.Errorf("list sources: %w", err)
	}
	parts := []string{runtime.Version()}
	for _, file := range slices.Concat(files, []string{"../../go.sum"}) {
		text, err := os.ReadFile(file)
		if err != nil {
			return cache.Inputs{}, fmt.Errorf("read source: %w", err)
		}
		parts = append(parts, file, string(text))
	}
	return cache.Inputs{Version: "work", Parts: parts}, nil
}

// Program returns the path of a program.
func Program(ctx context.Context, name string) (string, error) {
	dir, err := cache.Get(ctx, item(name))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name), nil
}
