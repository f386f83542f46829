// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"io"
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

// summary is the last line of the text form.
var summary = map[Result]string{
	OK:       "This host runs isolated containers.",
	Degraded: "This host runs isolated containers, with the limits above.",
	Failed:   "This host cannot run isolated containers.",
}

// WriteText writes the report for a human: a line for each finding, the fix
// below it.
func (r Report) WriteText(w io.Writer) error {
	width := 0
	for _, l := range r.Lines {
		width = max(width, min(len(l.What), 40))
	}
	var b strings.Builder
	for _, l := range r.Lines {
		fmt.Fprintf(&b, "%-8s  %-*s  %s\n", l.Result, width, l.What, l.Reason)
		if l.Fix != "" {
			lead := "fix: "
			if l.Result == Note {
				lead = "how: "
			}
			for i, part := range strings.Split(l.Fix, "\n") {
				if i > 0 {
					lead = "     "
				}
				fmt.Fprintf(&b, "%-8s  %-*s  %s%s\n", "", width, "", lead, part)
			}
		}
	}
	fmt.Fprintf(&b, "\n%s\n", summary[r.Result()])
	_, err := io.WriteString(w, b.String())
	return err
}
