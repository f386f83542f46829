// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/isolate-shim/isolate/integration/cache"
	"github.com/isolate-shim/isolate/integration/rig"
)

// programName is the attacker among the cached things: it is built outside the
// rig, and once.
const programName = "isolate-escape-inside"

func init() {
	cache.Register(cache.Item{Name: programName, Resolve: resolveProgram, Make: buildProgram})
}

// capacityName is the program that takes what there is.
const capacityName = "isolate-escape-capacity"

func init() {
	cache.Register(cache.Item{Name: capacityName, Resolve: resolveProgram, Make: func(ctx context.Context, w cache.Work) error {
		command := cache.Command{Env: []string{"CGO_ENABLED=0"}, Log: w.Log}
		return command.Run(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", w.Dir+"/capacity", "./capacity")
	}})
}

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

func resolveProgram(context.Context) (cache.Inputs, error) {
	files, err := filepath.Glob("[ci]*/*.go")
	if err != nil {
		return cache.Inputs{}, fmt.Errorf("list sources: %w", err)
	}
	parts := []string{runtime.Version()}
	for _, name := range slices.Concat(files, []string{"../../go.sum"}) {
		text, err := os.ReadFile(name)
		if err != nil {
			return cache.Inputs{}, fmt.Errorf("read source: %w", err)
		}
		parts = append(parts, name, string(text))
	}
	return cache.Inputs{Version: "work", Parts: parts}, nil
}

func buildProgram(ctx context.Context, w cache.Work) error {
	command := cache.Command{Env: []string{"CGO_ENABLED=0"}, Log: w.Log}
	return command.Run(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", w.Dir+"/inside", "./inside")
}

// program returns the attacker.
func program(t *testing.T) string {
	t.Helper()
	dir, err := cache.Get(t.Context(), programName)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "inside")
}
