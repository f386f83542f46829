// SPDX-License-Identifier: Apache-2.0

// Command fuzzall runs every fuzz target of the repository, one after another:
// go test -fuzz takes a single target only. It prints a line for each and fails
// if one has found something.
//
//	go run ./integration/cmd/fuzzall [-time 10s] [PACKAGE...]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	length := flag.Duration("time", 10*time.Second, "how long each target is fuzzed")
	flag.Parse()
	packages := flag.Args()
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	if err := fuzzAll(ctx, packages, *length); err != nil {
		fmt.Fprintln(os.Stderr, "fuzzall:", err)
		os.Exit(1)
	}
}

func fuzzAll(ctx context.Context, packages []string, length time.Duration) error {
	targets, err := find(ctx, packages)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return fmt.Errorf("no fuzz targets in %s", strings.Join(packages, " "))
	}
	fmt.Printf("%d targets, %s each\n", len(targets), length)
	width := 0
	for _, t := range targets {
		width = max(width, len(t.String()))
	}
	var failed []string
	for _, t := range targets {
		output, err := t.fuzz(ctx, length)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if err != nil {
			fmt.Printf("FAIL %s\n%s", t, output)
			failed = append(failed, t.String())
			continue
		}
		fmt.Printf("ok   %-*s  %s\n", width, t, summary(output))
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d targets failed: %s\nwhat was found is below testdata/fuzz of the package and is tried by go test from now on",
			len(failed), len(targets), strings.Join(failed, ", "))
	}
	return nil
}

// target is one fuzz function.
type target struct{ pkg, name string }

func (t target) String() string {
	_, short, _ := strings.Cut(t.pkg, "github.com/isolate-shim/isolate/")
	return short + " " + t.name
}

// fuzz returns what go test has printed.
func (t target) fuzz(ctx context.Context, length time.Duration) (string, error) {
	output, err := command(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", length.String(), t.pkg).CombinedOutput()
	return string(output), err
}

// find lists the fuzz targets of packages.
func find(ctx context.Context, packages []string) ([]target, error) {
	list := command(ctx, append([]string{"go", "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}"}, packages...)...)
	names, err := stdout(list)
	if err != nil {
		return nil, err
	}
	var targets []target
	for pkg := range strings.FieldsSeq(names) {
		text, err := stdout(command(ctx, "go", "test", "-list", "^Fuzz", pkg))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			if name := strings.TrimSpace(line); strings.HasPrefix(name, "Fuzz") {
				targets = append(targets, target{pkg, name})
			}
		}
	}
	return targets, nil
}

func stdout(c *exec.Cmd) (string, error) {
	output, err := c.Output()
	if err == nil {
		return string(output), nil
	}
	// go test reports what does not compile on stdout.
	stderr := output
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		stderr = append(stderr, exit.Stderr...)
	}
	return "", fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, stderr)
}

// command is killed gently, since go test has to end the fuzzing workers.
func command(ctx context.Context, argv ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 5 * time.Second
	return c
}

// summary returns the last line of progress of go test, without its prefix.
func summary(output string) string {
	last := ""
	for line := range strings.Lines(output) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "fuzz: "); ok && strings.Contains(rest, "execs:") {
			last = rest
		}
	}
	return last
}
