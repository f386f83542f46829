// SPDX-License-Identifier: Apache-2.0

package matrix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isolate-shim/isolate/integration/cache"
	"github.com/isolate-shim/isolate/integration/image"
	_ "github.com/isolate-shim/isolate/integration/rig" // the project's own programs
	"github.com/isolate-shim/isolate/integration/vm"
)

// legLimit bounds a machine. Its tests take a fourth of it on idle processors.
const legLimit = 25 * time.Minute

// built are the test programs.
type built struct {
	top string // of the repository
	dir string // where they are
}

func (b built) program(s suite) string { return filepath.Join(b.dir, s.name()+".test") }

// build makes all that the legs need.
func build(ctx context.Context, chosen []leg, log io.Writer) (built, error) {
	needed := slices.Clone(usual)
	for _, l := range chosen {
		needed = append(needed, l.needs...)
		if slices.ContainsFunc(l.suites, func(s suite) bool { return s.dir == core.dir }) {
			needed = append(needed, string(image.DemoSmall))
		}
	}
	for _, name := range needed {
		if _, err := cache.Get(ctx, name); err != nil {
			return built{}, err
		}
	}
	top, err := os.Getwd()
	if err != nil {
		return built{}, fmt.Errorf("find repository: %w", err)
	}
	b := built{top: top, dir: filepath.Join(top, "bin/vm")}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return built{}, fmt.Errorf("make directory for test programs: %w", err)
	}
	var done []string
	for _, l := range chosen {
		for _, s := range l.suites {
			if slices.Contains(done, s.dir) {
				continue
			}
			done = append(done, s.dir)
			argv := []string{"go", "test", "-c", "-buildvcs=false", "-o", b.program(s), "./" + s.dir}
			if err := (cache.Command{Dir: top, Env: []string{"CGO_ENABLED=0"}, Log: log}).Run(ctx, argv...); err != nil {
				return built{}, err
			}
		}
	}
	for _, s := range []suite{core, hostile} {
		if !slices.Contains(done, s.dir) {
			continue
		}
		// What these tests build by themselves is built here, where it is fast.
		warm := cache.Command{Dir: filepath.Join(top, s.dir), Log: io.Discard}
		if err := warm.Run(ctx, b.program(s), "-test.run=^TestInsideProgram$"); err != nil {
			return built{}, err
		}
	}
	return b, nil
}

// run runs the suites of a leg in one machine, and tells what became of them. All
// that they print is in a file beside the programs. With an error come the suites
// that failed, to be tried once more: the only processor of an emulated machine
// stands still for a minute at times, and no limit of time in a test outlasts that.
// What is wrong for another reason fails twice.
func (b built) run(ctx context.Context, l leg, tests string, stdout io.Writer) (again []suite, _ error) {
	path := filepath.Join(b.dir, l.name()+".log")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("write log: %w", err)
	}
	defer file.Close()
	var printed bytes.Buffer
	out := io.MultiWriter(file, &printed)
	start := time.Now()
	code, err := vm.Run(ctx, vm.Config{
		Kernel: l.kernel, Cgroup: l.cgroup, Init: l.init, CPUs: 1, Memory: "2G", Timeout: legLimit, Append: l.parameters,
		Argv: []string{"sh", "-c", b.script(l, tests)}, Env: append(os.Environ(), "ISOLATE_NO_SKIP=kernel", "ISOLATE_PATIENCE=5"), Dir: b.top,
		Stdout: out, Stderr: out, Console: file,
	})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d, see %s", code, path)
	}
	if err == nil {
		err = ranAll(printed.String())
	}
	again = unfinished(l.suites, printed.String())
	if inside := lasted(printed.String()); inside > 2*time.Since(start) {
		again, err = l.suites, errors.Join(err, fmt.Errorf("the machine's clock is wrong, by which %s have passed", inside))
	}
	for _, line := range digest(printed.String(), err != nil) {
		fmt.Fprintf(stdout, "%-28s %s\n", l.name(), line)
	}
	if err == nil {
		fmt.Fprintf(stdout, "%-28s ok %.0f s\n", l.name(), time.Since(start).Seconds())
		return nil, nil
	}
	return again, err
}

// unfinished are the suites that have failed tests, or did not come to their end.
func unfinished(suites []suite, printed string) []suite {
	passed := map[string]bool{}
	for part := range strings.SplitSeq(printed, "=== SUITE ") {
		name, rest, _ := strings.Cut(part, "\n")
		lines := strings.Split(rest, "\n")
		passed[name] = slices.Contains(lines, "PASS") && !slices.Contains(lines, "FAIL")
	}
	return slices.DeleteFunc(slices.Clone(suites), func(s suite) bool { return passed[s.name()] })
}

func names(suites []suite) []string {
	var out []string
	for _, s := range suites {
		out = append(out, s.name())
	}
	return out
}

// script runs the suites one after the other, all of them, and fails if one does.
func (b built) script(l leg, tests string) string {
	var text strings.Builder
	text.WriteString("code=0\n")
	for _, s := range l.suites {
		pattern := tests
		if pattern == "" {
			pattern = strings.Join(s.tests, "|")
		}
		fmt.Fprintf(&text, "cd %s && echo '=== SUITE %s' && start=$(date +%%s)\n", quote(filepath.Join(b.top, s.dir)), s.name())
		fmt.Fprintf(&text, "env %s %s -test.v -test.timeout=%s -test.run=%s || code=1\n",
			strings.Join(s.env, " "), quote(b.program(s)), legLimit, quote(pattern))
		fmt.Fprintf(&text, "echo \"=== END %s: $(($(date +%%s) - start)) s\"\n", s.name())
	}
	text.WriteString("exit $code\n")
	return text.String()
}

// lasted is how long all suites took by the machine's own clock.
func lasted(printed string) time.Duration {
	var sum time.Duration
	for line := range strings.Lines(printed) {
		text, ok := strings.CutPrefix(line, "=== END ")
		if !ok {
			continue
		}
		_, text, _ = strings.Cut(text, ": ")
		if seconds, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(text), " s")); err == nil {
			sum += time.Duration(seconds) * time.Second
		}
	}
	return sum
}

// ranAll fails if a suite has run no test.
func ranAll(printed string) error {
	for part := range strings.SplitSeq(printed, "=== SUITE ") {
		name, rest, _ := strings.Cut(part, "\n")
		if strings.Contains(rest, "testing: warning: no tests to run") {
			return fmt.Errorf("suite %s has run no tests", name)
		}
	}
	return nil
}

func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// digest are the lines that matter of what a leg has printed: one for each suite,
// its count of tests and skips, and in case of failure all that failed tests said.
// What others said is left out, so that the end of a long report has the reason.
func digest(printed string, failed bool) []string {
	var failures []string
	for line := range strings.Lines(printed) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "--- FAIL: "); ok {
			name, _, _ := strings.Cut(rest, " ")
			failures = append(failures, name)
		}
	}
	var lines []string
	current, said := "", false // the test that speaks, and whether the line before was kept
	for line := range strings.Lines(printed) {
		line = strings.TrimRight(line, "\r\n")
		short := strings.TrimSpace(line)
		if name, ok := cutSpeaker(short); ok {
			current, said = name, false
			continue
		}
		said = failed && slices.Contains(failures, current) &&
			(strings.Contains(line, "_test.go:") || said && strings.HasPrefix(line, "        "))
		switch {
		case strings.HasPrefix(short, "=== END "):
			lines = append(lines, strings.TrimPrefix(short, "=== END "))
		case said, strings.HasPrefix(short, "integration: "), strings.HasPrefix(short, "--- FAIL"), strings.HasPrefix(short, "panic:"):
			lines = append(lines, short)
		}
	}
	return lines
}

// cutSpeaker cuts a line by which a test program says whose lines follow.
func cutSpeaker(line string) (name string, ok bool) {
	for _, what := range []string{"RUN", "NAME", "CONT"} {
		if name, ok := strings.CutPrefix(line, "=== "+what+" "); ok {
			return strings.TrimSpace(name), true
		}
	}
	return "", false
}
