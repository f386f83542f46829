// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"slices"
	"strings"
)

// Result is how a finding turned out.
type Result string

// The results, from good to bad.
const (
	// OK means that everything works.
	OK Result = "ok"
	// Note means that nothing is amiss, and that there is something to know.
	Note Result = "note"
	// Degraded means that containers run without something.
	Degraded Result = "degraded"
	// Failed means that containers cannot run.
	Failed Result = "failed"
)

// Line is one finding.
type Line struct {
	// What was looked at.
	What string `json:"what"`
	// Result of looking.
	Result Result `json:"result"`
	// Reason is what was found.
	Reason string `json:"reason,omitempty"`
	// Fix is what to do about it; none if Result is OK. It may have several lines.
	Fix string `json:"fix,omitempty"`
}

// Report is the findings in the order they were made.
type Report struct {
	Lines []Line `json:"lines"`
}

// Result is the worst of the lines'.
func (r Report) Result() Result {
	worst := OK
	for _, l := range r.Lines {
		switch l.Result {
		case Failed:
			return Failed
		case Degraded:
			worst = Degraded
		case OK, Note:
		}
	}
	return worst
}

// ExitCode is 0 if all is well, 1 if something is missing, 2 if containers
// cannot run.
func (r Report) ExitCode() int {
	switch r.Result() {
	case OK:
		return 0
	case Degraded:
		return 1
	default:
		return 2
	}
}

// add adds a line, unless it is there: two daemons may have the same to tell.
func (r *Report) add(l Line) {
	if !slices.Contains(r.Lines, l) {
		r.Lines = append(r.Lines, l)
	}
}

func (r *Report) ok(what, format string, args ...any) {
	r.add(Line{What: what, Result: OK, Reason: fmt.Sprintf(format, args...)})
}

func (r *Report) note(what, fix, format string, args ...any) {
	r.bad(Note, what, fix, format, args...)
}

func (r *Report) bad(result Result, what, fix, format string, args ...any) {
	r.add(Line{What: what, Result: result, Reason: fmt.Sprintf(format, args...), Fix: fix})
}

// severe are the lines from bad to good, each kind in the order of the report.
func (r Report) severe() []Line {
	rank := []Result{Failed, Degraded, Note, OK}
	lines := slices.Clone(r.Lines)
	slices.SortStableFunc(lines, func(a, b Line) int {
		return slices.Index(rank, a.Result) - slices.Index(rank, b.Result)
	})
	return lines
}

// verdict is the first line of the text form.
func (r Report) verdict() string {
	text := map[Result]string{
		OK:       "This host runs isolated containers",
		Degraded: "This host runs isolated containers, with limits",
		Failed:   "This host cannot run isolated containers",
	}[r.Result()]
	var counts []string
	for _, result := range []Result{Failed, Degraded, Note, OK} {
		n := 0
		for _, l := range r.Lines {
			if l.Result == result {
				n++
			}
		}
		name := string(result)
		if result == Note && n != 1 {
			name += "s"
		}
		if n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, name))
		}
	}
	return text + ": " + strings.Join(counts, ", ") + "."
}
