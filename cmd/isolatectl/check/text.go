// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Style is how a report is written.
type Style struct {
	// Width is where lines are broken, in columns; 0 for nowhere, so that each
	// finding is one line for grep(1).
	Width int
	Color bool
}

// indent is where what a finding is about begins: behind the longest result.
const indent = len(Degraded) + 2

// colors are SGR sequences of a terminal.
var colors = map[Result]string{OK: "\x1b[32m", Note: "\x1b[36m", Degraded: "\x1b[33m", Failed: "\x1b[1;31m"}

const plain = "\x1b[0m"

// WriteText writes the report for a human: the verdict, then each finding, the worst
// first, with the fix below it.
func (r Report) WriteText(w io.Writer, style Style) error {
	var b strings.Builder
	write := func(first, text string) {
		for i, line := range Wrap(text, style.Width-indent) {
			if i > 0 {
				first = ""
			}
			fmt.Fprintf(&b, "%*s%s\n", indent-len(first), "", line)
		}
	}
	for _, line := range Wrap(r.verdict(), style.Width) {
		fmt.Fprintln(&b, line)
	}
	fmt.Fprintln(&b)
	for _, l := range r.severe() {
		mark := string(l.Result)
		if style.Color {
			mark = colors[l.Result] + mark + plain
		}
		b.WriteString(mark)
		write(string(l.Result), l.What+": "+l.Reason)
		if l.Fix == "" {
			continue
		}
		lead := "fix: "
		if l.Result == Note {
			lead = "how: "
		}
		// What follows the first line is to be copied as it is.
		sentence, copied, more := strings.Cut(l.Fix, "\n")
		write("", lead+sentence)
		if more {
			for line := range strings.SplitSeq(copied, "\n") {
				fmt.Fprintf(&b, "%*s%s\n", indent+2, "", line)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Wrap breaks a text where it has blanks, into lines of at most width columns if its
// words are no longer. It breaks nothing if width is too small to be one.
func Wrap(text string, width int) []string {
	if width < 20 {
		return []string{text}
	}
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
