// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Mark is the present length of the log, for Since.
func (n *Node) Mark(t testing.TB) int {
	t.Helper()
	return len(n.Since(t, 0))
}

// Since returns what containerd and its shims have logged since a mark.
func (n *Node) Since(t testing.TB, mark int) string {
	t.Helper()
	text, err := os.ReadFile(n.Log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text[mark:])
}

// Said returns the lines of shims under test among what was logged since a mark.
func (n *Node) Said(t testing.TB, mark int) []string { t.Helper(); return said(n.Since(t, mark)) }

// Warnings returns the warnings among what shims have said.
func (n *Node) Warnings(t testing.TB, mark int) []string {
	t.Helper()
	return Warnings(n.Since(t, mark))
}

func said(log string) (lines []string) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "isolate: ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// Warnings returns the warnings of shims under test in a log.
func Warnings(log string) []string {
	return slices.DeleteFunc(said(log), func(line string) bool { return !strings.Contains(line, "level=warning") })
}
