// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/isolate-shim/isolate/integration/cache"
)

// insideProgram is what measures inside of containers, among the cached things.
const insideProgram = "isolate-bench-inside"

func init() {
	cache.Register(cache.Item{Name: insideProgram, Resolve: resolveInside, Make: buildInside})
}

func resolveInside(context.Context) (cache.Inputs, error) {
	files, err := filepath.Glob("integration/inside/*.go")
	if err != nil || len(files) == 0 {
		return cache.Inputs{}, errors.Join(errors.New("find integration/inside: run it from the top of the sources"), err)
	}
	parts := []string{runtime.Version()}
	for _, name := range append(files, "go.sum") {
		text, err := os.ReadFile(name)
		if err != nil {
			return cache.Inputs{}, fmt.Errorf("read source: %w", err)
		}
		parts = append(parts, name, string(text))
	}
	return cache.Inputs{Version: "work", Parts: parts}, nil
}

func buildInside(ctx context.Context, w cache.Work) error {
	command := cache.Command{Env: []string{"CGO_ENABLED=0"}, Log: w.Log}
	return command.Run(ctx, "go", "build", "-trimpath", "-o", w.Dir+"/inside", "./integration/inside")
}

// inside are times in microseconds; see integration/inside.
type inside struct{ PivotRoot, Mount, OpenAt2, Sysctl, Sysinfo []float64 }

// way is a way to run the program.
type way struct {
	name, runtime, toml string
	flags               []string
}

var (
	// plain may mount, which a container of runc's does not let others.
	plain = way{name: "runc.v2 --privileged", runtime: upstream, flags: []string{"--privileged"}}
	quiet = way{name: "isolate, lxcfs.nested = false", runtime: isolate, toml: "lxcfs.nested = false\n"}
	usual = way{name: "isolate", runtime: isolate}
)

// nested measures what containers inside cost: the notification that shows them
// their limits, and the system calls that are made most by what runs them.
func (m *measurement) nested(ctx context.Context, runtime string) error {
	dir, err := cache.Get(ctx, insideProgram)
	if err != nil {
		return err
	}
	program := filepath.Join(dir, "inside")
	ways := []way{plain, quiet, usual}
	results := map[string][]inside{}
	for round := range max(3, m.pairs/3) {
		order := slices.Clone(ways)
		if round%2 != 0 {
			slices.Reverse(order)
		}
		for _, w := range order {
			r, err := m.inside(ctx, w, program)
			if err != nil {
				return err
			}
			results[w.name] = append(results[w.name], r)
		}
	}
	fmt.Printf("\npivot_root of an inner container, %s; ms; target: notification below 10 ms, also the first\n", runtime)
	for _, w := range ways {
		var first, later []float64
		for _, r := range results[w.name] {
			first = append(first, r.PivotRoot[0]/1000)
			for _, us := range r.PivotRoot[1:] {
				later = append(later, us/1000)
			}
		}
		fmt.Printf("%-35s  first %s  later %s\n", w.name, quartilesOf(first), quartilesOf(later))
	}
	fmt.Printf("\nsystem calls in a container, %s; µs: %s, isolate; target: ratios of about 1\n", runtime, plain.name)
	for _, part := range []struct {
		name string
		of   func(inside) []float64
	}{
		{"mount and unmount a tmpfs", func(r inside) []float64 { return r.Mount }},
		{"openat2 and close", func(r inside) []float64 { return r.OpenAt2 }},
		{"read a sysctl", func(r inside) []float64 { return r.Sysctl }},
		{"sysinfo, which isolate answers", func(r inside) []float64 { return r.Sysinfo }},
	} {
		var medians [2][]float64
		for i, w := range []way{plain, usual} {
			for _, r := range results[w.name] {
				medians[i] = append(medians[i], quartilesOf(part.of(r)).median)
			}
		}
		fmt.Printf("%-35s  %9.2f %9.2f  ratio %s\n", part.name, quartilesOf(medians[0]).median, quartilesOf(medians[1]).median, ratios(medians[1], medians[0]))
	}
	return nil
}

// inside runs the program as the first process of a container.
func (m *measurement) inside(ctx context.Context, w way, program string) (inside, error) {
	var r inside
	if err := errors.Join(os.MkdirAll("/etc/isolate", 0o755), os.WriteFile("/etc/isolate/config.toml", []byte(w.toml), 0o644)); err != nil {
		return r, fmt.Errorf("configure isolate: %w", err)
	}
	m.made++
	run := m.node.Ctr(ctx, slices.Concat([]string{"run", "--rm", "--runtime", w.runtime, "--mount", "type=bind,src=" + program + ",dst=/inside,options=rbind:ro"},
		w.flags, []string{m.image, "b" + strconv.Itoa(m.made), "/inside", "measure"})...)
	if err := run.Err(); err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(run.Stdout), &r); err != nil {
		return r, fmt.Errorf("read times: %w", err)
	}
	if len(r.PivotRoot) < 2 {
		return r, fmt.Errorf("read times: %q", run.Stdout)
	}
	return r, nil
}
