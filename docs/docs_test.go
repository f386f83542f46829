// SPDX-License-Identifier: Apache-2.0

// Package docs holds the pages for users and for those who change isolate, and tests
// that keep the pages true.
package docs

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/isolate-shim/isolate/integration/manual"
	"github.com/isolate-shim/isolate/internal/linux/userns"
)

// root is the directory of the repository.
const root = ".."

// document is one page.
type document struct{ path, text string }

// pages returns the pages that describe isolate as it is now. CHANGELOG.md is none: it
// tells what was.
func pages(t *testing.T) []document {
	t.Helper()
	var paths []string
	for _, pattern := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	all := make([]document, 0, len(paths))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, document{path, string(text)})
	}
	if len(all) < 10 {
		t.Fatalf("only %d pages were found", len(all))
	}
	return all
}

var (
	testName = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w*`)
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	codeSpan = regexp.MustCompile("`([^`\n]+)`")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	// inTree are paths of this repository, as pages write them.
	inTree = regexp.MustCompile(`^(?:cmd|deploy|docs|idmap|integration|internal|shim|spec)(?:/[\w.-]+)+/?$`)
)

// tests are the names of all tests in the repository.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// A claim is worth as much as the test that it names.
func TestPagesNameTestsThatExist(t *testing.T) {
	t.Parallel()
	there, named := tests(t), 0
	for _, p := range pages(t) {
		for _, span := range codeSpan.FindAllStringSubmatch(p.text, -1) {
			for _, name := range testName.FindAllString(span[1], -1) {
				if named++; !there[name] {
					t.Errorf("%s names the test %s, which does not exist", p.path, name)
				}
			}
		}
	}
	if named == 0 {
		t.Error("no page names a test")
	}
}

// Code moves, and pages that name it have to follow.
func TestPagesNamePathsThatExist(t *testing.T) {
	t.Parallel()
	for _, p := range pages(t) {
		for _, span := range codeSpan.FindAllStringSubmatch(p.text, -1) {
			if !inTree.MatchString(span[1]) {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, span[1])); errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s names %s, which does not exist", p.path, span[1])
			}
		}
	}
}

func TestPagesLinkToWhatExists(t *testing.T) {
	t.Parallel()
	for _, p := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(p.text, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			file, fragment, _ := strings.Cut(m[1], "#")
			target := p.path
			if file != "" {
				target = filepath.Join(filepath.Dir(p.path), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", p.path, m[1], err)
				continue
			}
			if fragment != "" && !hasAnchor(t, target, fragment) {
				t.Errorf("%s links to %s, and %s has no such heading", p.path, m[1], target)
			}
		}
	}
}

// hasAnchor tells whether a heading of a page has a name, as GitHub makes them.
func hasAnchor(t *testing.T, path, name string) bool {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dropped := regexp.MustCompile(`[^\w\- ]`)
	for _, m := range heading.FindAllStringSubmatch(string(text), -1) {
		if strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-") == name {
			return true
		}
	}
	return false
}

// Files that people copy must at least be well-formed.
func TestPagesHaveFilesThatParse(t *testing.T) {
	t.Parallel()
	parsers := map[string]func([]byte, any) error{"json": json.Unmarshal, "toml": toml.Unmarshal}
	n := 0
	for _, p := range pages(t) {
		for _, block := range manual.Parse(p.text) {
			parse := parsers[block.Language]
			if parse == nil {
				continue
			}
			n++
			var into any
			if err := parse([]byte(block.Text), &into); err != nil {
				t.Errorf("%s:%d: %v", p.path, block.Line, err)
			}
		}
	}
	if n == 0 {
		t.Error("no file was found")
	}
}

// Commands that people paste are run as they are written, or the page says in its source
// why not.
func TestPagesHaveCommandsThatAreRun(t *testing.T) {
	t.Parallel()
	there, run, not := tests(t), 0, 0
	for _, p := range pages(t) {
		if filepath.Base(p.path) == "CONTRIBUTING.md" {
			continue // what CI runs
		}
		for _, block := range manual.Parse(p.text) {
			switch {
			case !block.Commands():
			case block.Reason != "":
				not++
				for _, name := range testName.FindAllString(block.Reason, -1) {
					if !there[name] {
						t.Errorf("%s:%d: there is no test %s", p.path, block.Line, name)
					}
				}
			case block.Test == "":
				t.Errorf("%s:%d: the line before these commands does not say what runs them, or why nothing does: see integration/manual", p.path, block.Line)
			default:
				if run++; !reads(t, block.Test, p.path) {
					t.Errorf("%s:%d: no package has the test %s and reads this page", p.path, block.Line, block.Test)
				}
			}
		}
	}
	t.Logf("%d blocks of commands are run by tests, %d are not, for the reasons that the pages have", run, not)
}

// reads tells whether a package below integration has a test and names a page.
func reads(t *testing.T, test, path string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "integration/*/*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	has, names := map[string]bool{}, map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(file)
		has[dir] = has[dir] || strings.Contains(string(text), "\nfunc "+test+"(")
		names[dir] = names[dir] || strings.Contains(string(text), strings.TrimPrefix(path, root+"/"))
		if has[dir] && names[dir] {
			return true
		}
	}
	return false
}

// README.md is read by people who do not know yet whether to read on.
func TestReadmeIsShort(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n >= 200 {
		t.Errorf("it has %d lines", n)
	}
}

// Whoever renames a target of the Makefile does not see a workflow fail before it is too
// late.
func TestWorkflowsCallTargetsThatExist(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]*regexp.Regexp{
		"test.yaml":    regexp.MustCompile(`(?m)^          - ([a-z][a-z0-9-]*)`), // the matrix
		"release.yaml": regexp.MustCompile(`run: make ([a-z][a-z0-9-]*)`),
	}
	for name, call := range calls {
		text, err := os.ReadFile(filepath.Join(root, ".github/workflows", name))
		if err != nil {
			t.Fatal(err)
		}
		targets := call.FindAllStringSubmatch(string(text), -1)
		if len(targets) == 0 {
			t.Errorf("%s calls no target", name)
		}
		for _, m := range targets {
			if !strings.Contains(string(makefile), "\n"+m[1]+":") {
				t.Errorf("%s: the Makefile has no target %q", name, m[1])
			}
		}
	}
}

// The limit is told in the words of the error.
func TestLimitsSayWhatIsSaidInside(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("limits.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := userns.ErrInside.Error(); !strings.Contains(strings.Join(strings.Fields(string(text)), " "), want) {
		t.Errorf("limits.md does not say %q", want)
	}
}

// A message that nobody prints any more helps nobody who has the new one.
func TestTroubleshootingKnowsTheMessages(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, own, _ := strings.Cut(string(text), "## Messages of isolate")
	own, _, _ = strings.Cut(own, "\n## ")
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(own, -1)
	if len(rows) < 10 {
		t.Fatalf("only %d messages were found", len(rows))
	}
	var source strings.Builder
	for _, dir := range []string{"idmap", "internal", "shim", "spec"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			source.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range rows {
		if !strings.Contains(source.String(), row[1]) {
			t.Errorf("no message has %q", row[1])
		}
	}
}
