// SPDX-License-Identifier: Apache-2.0

// Package manual finds the blocks of README.md and of the pages in docs, so that tests
// can run them as they are written.
//
// A block of commands is fenced as sh, or indented. The line before it ends in a comment
// that says which test runs it, or why none does:
//
//	<!-- run by TestDocumentation -->
//	<!-- not run: it installs a service -->
//
// What does not belong here: how commands are run. Only a test knows the rig and the
// images that stand for those of the page.
package manual

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Block is a part of a page that is not prose.
type Block struct {
	Language string // of its fence; "" if it is indented
	Text     string // without fence and indentation
	Line     int    // its first, counted from 1
	Test     string // that runs it; "" if none does
	Reason   string // why none does; "" if that is not said
}

// Commands tells whether the block is one to type into a shell.
func (b *Block) Commands() bool { return b.Language == "" || b.Language == "sh" }

var mark = regexp.MustCompile(`<!-- (?:run by (Test\w+)|not run: ([^>]+)) -->$`)

// Parse returns the blocks of a page in Markdown.
func Parse(text string) []Block {
	const indent = "    "
	var blocks []Block
	var block *Block // that the line before belongs to
	fenced, blank, before := false, true, ""
	for i, line := range strings.Split(text, "\n") {
		switch {
		case fenced && line == "```":
			fenced, block = false, nil
		case !fenced && block == nil && strings.HasPrefix(line, "```"), block == nil && blank && strings.HasPrefix(line, indent):
			b := Block{Line: i + 1}
			if m := mark.FindStringSubmatch(before); m != nil {
				b.Test, b.Reason = m[1], m[2]
			}
			before = ""
			b.Language, fenced = strings.CutPrefix(line, "```")
			if !fenced {
				b.Language, b.Text = "", line[len(indent):]+"\n"
			}
			blocks = append(blocks, b)
			block = &blocks[len(blocks)-1]
		case fenced:
			block.Text += line + "\n"
		case block != nil && strings.HasPrefix(line, indent):
			block.Text += line[len(indent):] + "\n"
		default:
			block = nil
			if line != "" {
				before = line
			}
		}
		blank = line == "" || strings.HasSuffix(line, "-->")
	}
	return blocks
}

// Commands returns the commands of the one block of a page, such as docs/docker.md, that
// has part in it and is run by a test.
func Commands(t testing.TB, path, part string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", path)) // from a package in integration
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, b := range Parse(string(text)) {
		if b.Commands() && b.Test != "" && strings.Contains(b.Text, part) {
			found = append(found, b.Text)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s has %d blocks with %q that tests run, want 1", path, len(found), part)
	}
	return found[0]
}
