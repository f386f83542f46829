// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/isolate-shim/isolate/integration/rig"
)

// measurement is of one containerd.
type measurement struct {
	node  *rig.Node
	image string
	clock clock
	pairs int
	made  int
}

// samples are of one runtime, in milliseconds, one of each for every pair.
type samples struct{ wall, cpu []float64 }

// runs measures containers that end at once.
func (m *measurement) runs(ctx context.Context, runtime string) error {
	fmt.Printf("\nctr run --rm ... true, %s, %d pairs; CPU without that of ctr; target: ratios of at most 1.10\n", runtime, m.pairs)
	fmt.Printf("%-35s  %27s  %17s  %27s  %17s\n", "", "wall ms: runc.v2, isolate", "ratio", "CPU ms: runc.v2, isolate", "ratio")
	for _, s := range settings {
		if err := s.apply(); err != nil {
			return err
		}
		var of [2]samples
		for pair := -1; pair < m.pairs; pair++ { // the first is not counted
			order := [2]int{0, 1}
			if pair%2 != 0 {
				order = [2]int{1, 0}
			}
			for _, i := range order {
				wall, cpu, err := m.run(ctx, s, [2]string{upstream, isolate}[i])
				if err != nil {
					return err
				}
				if pair >= 0 {
					of[i].wall, of[i].cpu = append(of[i].wall, wall), append(of[i].cpu, cpu)
				}
			}
		}
		fmt.Printf("%-35s  %13.1f %13.1f  %17s  %13.1f %13.1f  %17s\n", s,
			quartilesOf(of[0].wall).median, quartilesOf(of[1].wall).median, ratios(of[1].wall, of[0].wall),
			quartilesOf(of[0].cpu).median, quartilesOf(of[1].cpu).median, ratios(of[1].cpu, of[0].cpu))
	}
	return nil
}

func (m *measurement) run(ctx context.Context, s setting, runtime string) (wall, cpu float64, err error) {
	before, err := m.clock.read()
	if err != nil {
		return 0, 0, err
	}
	m.made++
	args := []string{"run", "--rm", "--runtime", runtime, m.image, "b" + strconv.Itoa(m.made), "true"}
	if s.seccomp {
		args = slices.Insert(args, 1, "--seccomp")
	}
	start := time.Now()
	r := m.node.Ctr(ctx, args...)
	elapsed := time.Since(start)
	if err := r.Err(); err != nil {
		return 0, 0, err
	}
	after, err := m.clock.read()
	return milliseconds(elapsed), milliseconds(after - before), err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
