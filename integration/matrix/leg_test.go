// SPDX-License-Identifier: Apache-2.0

package matrix

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/cache"
	"github.com/isolate-shim/isolate/integration/vm"
)

// TestPatternsMatch: a pattern that matches no test would be a leg that tests less
// than it says.
func TestPatternsMatch(t *testing.T) {
	t.Parallel()
	for _, l := range legs {
		for _, s := range l.suites {
			names := testsIn(t, filepath.Join("../..", s.dir))
			for _, pattern := range s.tests {
				top, _, _ := strings.Cut(pattern, "/")
				if !slices.ContainsFunc(names, regexp.MustCompile(top).MatchString) {
					t.Errorf("%s: %q matches no test in %s", l.name(), pattern, s.dir)
				}
			}
		}
	}
}

// testsIn lists the tests of a package.
func testsIn(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("tests in %q: %q, %v", dir, files, err)
	}
	var names []string
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range file.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") && f.Name.Name != "TestMain" {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}

// TestLegs: every kernel is tested, each leg has a name of its own, and what it
// needs is known.
func TestLegs(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	kernels := map[vm.Kernel]bool{}
	for _, l := range legs {
		if seen[l.name()] {
			t.Errorf("two legs are called %s", l.name())
		}
		seen[l.name()], kernels[l.kernel] = true, true
		for _, name := range slices.Concat(usual, l.needs) {
			if !slices.Contains(cache.Names(), name) {
				t.Errorf("%s needs %q, which has no recipe", l.name(), name)
			}
		}
	}
	for _, k := range vm.Kernels {
		if !kernels[k] {
			t.Errorf("no leg runs kernel %s", k)
		}
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want []string // kernels and inits
		fail bool
	}{
		{args: []string{"-kernel", "6.1"}, want: []string{"6.1 none"}},
		{args: []string{"-kernel", "6.12,5.10", "-init", "none"}, want: []string{"6.12 none", "5.10 none"}},
		{args: []string{"-init", "systemd"}, want: []string{"6.12 systemd"}},
		{args: []string{"-kernel", "2.6"}, fail: true},
		{args: []string{"-kernel", "5.10", "-init", "systemd"}, fail: true},
		{args: []string{"-package", "nowhere"}, fail: true},
		{args: []string{"-nothing"}, fail: true},
	} {
		chosen, _, err := choose(test.args, t.Output())
		var got []string
		for _, l := range chosen {
			if l.what == "" {
				got = append(got, string(l.kernel)+" "+string(l.init))
			}
		}
		if !slices.Equal(got, test.want) || (err != nil) != test.fail {
			t.Errorf("choose(%q) = %q, %v, want %q", test.args, got, err, test.want)
		}
	}
}

// TestDigest: a program that ran no test is a failure, and of failures all is told
// that the failed tests said, and nothing that others did.
func TestDigest(t *testing.T) {
	t.Parallel()
	const passed = "=== SUITE a\n=== RUN   TestX\n    x_test.go:1: noise\n--- PASS: TestX (1.00s)\nintegration: 1 passed, none skipped\n=== END a: 3 s\n"
	if got := digest(passed, false); !slices.Equal(got, []string{"integration: 1 passed, none skipped", "a: 3 s"}) {
		t.Errorf("of success: %q", got)
	}
	const failed = "=== RUN   TestX\n    x_test.go:1: reason\n        and more\n    --- FAIL: TestX (1.00s)\n" +
		"=== RUN   TestY\n    y_test.go:1: noise\n        and more\n--- PASS: TestY (1.00s)\n"
	if got := digest(failed, true); !slices.Equal(got, []string{"x_test.go:1: reason", "and more", "--- FAIL: TestX (1.00s)"}) {
		t.Errorf("of failure: %q", got)
	}
	if err := ranAll("=== SUITE a\ntesting: warning: no tests to run\nPASS\n=== END a: 0 s\n"); err == nil {
		t.Error("a suite without tests has passed")
	}
	if err := ranAll(passed); err != nil {
		t.Error(err)
	}
	if got := lasted(passed + passed); got != 6*time.Second {
		t.Errorf("lasted %s", got)
	}
}

// TestUnfinished: what is run once more are the suites that failed or did not end.
func TestUnfinished(t *testing.T) {
	t.Parallel()
	suites := []suite{{dir: "a"}, {dir: "b/c"}, {dir: "d"}, {dir: "e"}}
	const printed = "=== SUITE a\n--- PASS: TestX (1.00s)\nPASS\n=== END a: 1 s\n" +
		"=== SUITE b-c\n--- FAIL: TestX (1.00s)\nFAIL\n=== END b-c: 1 s\n" +
		"=== SUITE d\n=== RUN   TestX\n"
	if got := names(unfinished(suites, printed)); !slices.Equal(got, []string{"b-c", "d", "e"}) {
		t.Errorf("%q", got)
	}
}
