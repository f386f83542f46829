// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Outcome is what became of a life.
type Outcome struct {
	Life Life
	// Hit are the faults that happened; others found nothing to hit, such as a runtime
	// to be killed between two of its commands.
	Hit []Name
	// Failed is what failed though nothing was wrong.
	Failed []string
	// Hung is what took longer than anything may.
	Hung []string
	// Unusable says why an id cannot be used again.
	Unusable []string
}

// Report adds up what became of all lives.
type Report struct {
	Shim       string
	Seed       uint64
	Lives      int
	Faulted    int // lives that a fault hit
	Planned    map[Name]int
	Hit        map[Name]int
	Failed     int
	Hung       int
	Unusable   int
	Left       map[Owner]map[string]int // after the batches, by kind
	End        []Left                   // at the end
	Took       time.Duration
	Daemons    []string // what those that live on use, in words
	Complaints []string
}

// Add counts a batch: its lives and what is left after it.
func (r *Report) Add(outcomes []Outcome, left []Left) {
	if r.Hit == nil {
		r.Planned, r.Hit, r.Left = map[Name]int{}, map[Name]int{}, map[Owner]map[string]int{Shims: {}, Others: {}}
	}
	for _, o := range outcomes {
		r.Lives++
		if len(o.Hit) > 0 {
			r.Faulted++
		}
		for _, f := range o.Life.Faults {
			r.Planned[f.Name]++
		}
		for _, name := range o.Hit {
			r.Hit[name]++
		}
		r.Failed += len(o.Failed)
		r.Hung += len(o.Hung)
		r.Unusable += len(o.Unusable)
		for what, list := range map[string][]string{"failed without a fault": o.Failed, "hung": o.Hung, "cannot be used again": o.Unusable} {
			for _, text := range list {
				r.Complaints = append(r.Complaints, fmt.Sprintf("%s: %s\n  life %s", what, text, o.Life))
			}
		}
	}
	for _, owner := range []Owner{Shims, Others} {
		for kind, n := range Counts(left, owner) {
			r.Left[owner][kind] += n
		}
	}
	for _, l := range left {
		if l.Owner == Shims {
			r.Complaints = append(r.Complaints, fmt.Sprintf("left: %d %s %s\n  %s", l.Count, l.Kind, l.Name, blame(l, outcomes)))
		}
	}
}

// blame names the life that something is of, or else those with a fault.
func blame(l Left, outcomes []Outcome) string {
	var lives []string
	for _, o := range outcomes {
		if Of(o.Life, l.Name) {
			return "life " + o.Life.String()
		}
		if len(o.Hit) > 0 {
			lives = append(lives, o.Life.String())
		}
	}
	return "one of the lives:\n    " + strings.Join(lives, "\n    ")
}

// Clean tells whether nothing is wrong with the shim.
func (r *Report) Clean() bool {
	return len(r.Left[Shims]) == 0 && len(Counts(r.End, Shims)) == 0 && r.Failed == 0 && r.Hung == 0 && r.Unusable == 0
}

// Write prints the table.
func (r *Report) Write(w io.Writer) {
	total := 0
	for _, n := range r.Hit {
		total += n
	}
	fmt.Fprintf(w, "\n%s, seed %d: %s in %v, %d of them hit by %s\n\n", r.Shim, r.Seed, plural(r.Lives, "life"), r.Took.Round(time.Second), r.Faulted, plural(total, "fault"))
	for _, name := range slices.Sorted(maps.Keys(r.Planned)) {
		fmt.Fprintf(w, "  %-32s %5d of %d found something to hit\n", name, r.Hit[name], r.Planned[name])
	}
	fmt.Fprintf(w, "\n  %-32s %s\n", "left by the shim", describe(r.Left[Shims]))
	fmt.Fprintf(w, "  %-32s %s\n", "  of that at the end", describe(Counts(r.End, Shims)))
	fmt.Fprintf(w, "  %-32s %s\n", "left by containerd and clients", describe(r.Left[Others]))
	fmt.Fprintf(w, "  %-32s %d\n", "ids that cannot be used again", r.Unusable)
	fmt.Fprintf(w, "  %-32s %d\n", "hangs", r.Hung)
	fmt.Fprintf(w, "  %-32s %d\n", "failures without a fault", r.Failed)
	for _, line := range r.Daemons {
		fmt.Fprintf(w, "  %s\n", line)
	}
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if noun == "life" {
		noun = "live"
	}
	if strings.HasSuffix(noun, "s") {
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
