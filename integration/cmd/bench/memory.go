// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// shimSamples is how many shims of each kind are looked at.
const shimSamples = 3

// idle is how long a shim does nothing before it is looked at.
const idle = 3 * time.Second

// shims measures the memory of idle shims. Only one runs at a time: pages that
// several share would count in part.
func (m *measurement) shims(ctx context.Context, runtime string) error {
	fmt.Printf("\nidle shim of one container, %s; PSS in KiB; target: at most 1.10 times upstream's\n", runtime)
	var pss, private [2][]float64
	for _, s := range []setting{settings[0], settings[3]} {
		if err := s.apply(); err != nil {
			return err
		}
		pss, private = [2][]float64{}, [2][]float64{}
		for range shimSamples {
			for i, name := range []string{upstream, isolate} {
				p, a, err := m.shim(ctx, name)
				if err != nil {
					return err
				}
				pss[i], private[i] = append(pss[i], p), append(private[i], a)
			}
		}
		fmt.Printf("%-35s  runc.v2 %6.0f  isolate %6.0f  ratio %s  (of these, anonymous: %.0f and %.0f)\n", s,
			quartilesOf(pss[0]).median, quartilesOf(pss[1]).median, ratios(pss[1], pss[0]),
			quartilesOf(private[0]).median, quartilesOf(private[1]).median)
	}
	return nil
}

// shim runs a container and returns its shim's memory.
func (m *measurement) shim(ctx context.Context, runtime string) (pss, anonymous float64, err error) {
	m.made++
	id := "b" + strconv.Itoa(m.made)
	if err := m.node.Ctr(ctx, "run", "-d", "--runtime", runtime, m.image, id, "sleep", "infinity").Err(); err != nil {
		return 0, 0, err
	}
	defer func() {
		err = errors.Join(err, m.node.Ctr(ctx, "tasks", "rm", "--force", id).Err(), m.node.Ctr(ctx, "containers", "rm", id).Err())
	}()
	list := m.node.Ctr(ctx, "tasks", "ls")
	if err := list.Err(); err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(list.Stdout, id+" ")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, 0, fmt.Errorf("container %q has no task", id)
	}
	// The shim is the parent: it made itself a subreaper.
	parent, err := field("/proc/"+fields[0]+"/status", "PPid:")
	if err != nil {
		return 0, 0, err
	}
	time.Sleep(idle)
	rollup := fmt.Sprintf("/proc/%.0f/smaps_rollup", parent)
	if pss, err = field(rollup, "Pss:"); err != nil {
		return 0, 0, err
	}
	anonymous, err = field(rollup, "Pss_Anon:")
	return pss, anonymous, err
}

// field returns a number of a file of lines with a name and a number.
func field(path, name string) (float64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read process: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			return strconv.ParseFloat(fields[1], 64)
		}
	}
	return 0, fmt.Errorf("no %q in %q", name, path)
}
