// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Requirement is what a test needs of the machine. A test that a machine cannot
// run is skipped, counted and named at the end; a requirement that nobody knows
// fails the test.
type Requirement string

// The requirements, and those that Kernel and Command return.
const (
	Root     Requirement = "root"
	FUSE     Requirement = "fuse"
	CgroupV1 Requirement = "cgroup v1"
	CgroupV2 Requirement = "cgroup v2"
)

// Kernel requires a kernel of at least that version, "6.15" for example.
func Kernel(version string) Requirement { return Requirement("kernel " + version) }

// Command requires a program of the machine.
func Command(name string) Requirement { return Requirement("command " + name) }

// NoSkip tells whether a skipped test is a failed one.
func NoSkip() bool { return os.Getenv("ISOLATE_NO_SKIP") == "1" }

// Require skips a test unless all requirements are met, and counts it. Each
// integration test calls it first.
func Require(t testing.TB, list ...Requirement) {
	t.Helper()
	for _, requirement := range list {
		missing, err := requirement.check()
		switch {
		case err != nil:
			t.Fatal(err)
		case missing == "":
		case NoSkip():
			requirements.skip(missing)
			t.Fatalf("needs %s: %s (ISOLATE_NO_SKIP is set)", requirement, missing)
		default:
			requirements.skip(missing)
			t.Skipf("needs %s: %s", requirement, missing)
		}
	}
	t.Cleanup(func() {
		if !t.Failed() && !t.Skipped() {
			requirements.pass()
		}
	})
}

// check returns what is missing, or an error if the requirement is unknown.
func (r Requirement) check() (missing string, err error) {
	kind, argument, _ := strings.Cut(string(r), " ")
	switch {
	case r == Root:
		if os.Geteuid() != 0 {
			return "not root", nil
		}
	case r == FUSE:
		if _, err := os.Stat("/dev/fuse"); err != nil {
			return "no /dev/fuse", nil //nolint:nilerr // that is the answer
		}
	case r == CgroupV1 || r == CgroupV2:
		_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
		if v2 := err == nil; v2 != (r == CgroupV2) {
			return "machine has another cgroup version", nil
		}
	case kind == "kernel":
		return olderThan(argument)
	case kind == "command" && argument != "":
		if _, err := exec.LookPath(argument); err != nil {
			return "no " + argument, nil //nolint:nilerr // that is the answer
		}
	default:
		return "", fmt.Errorf("unknown requirement %q", r)
	}
	return "", nil
}

func olderThan(version string) (missing string, err error) {
	wantMajor, wantMinor, err := parseKernel(version)
	if err != nil {
		return "", fmt.Errorf("unknown requirement: %w", err)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	major, minor, err := parseKernel(release)
	if err != nil {
		return "", err
	}
	if major < wantMajor || major == wantMajor && minor < wantMinor {
		return "kernel is " + release, nil
	}
	return "", nil
}

// parseKernel reads the first two numbers of a kernel release.
func parseKernel(release string) (major, minor int, err error) {
	first, rest, found := strings.Cut(release, ".")
	second := rest
	if end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		second = rest[:end]
	}
	major, err1 := strconv.Atoi(first)
	minor, err2 := strconv.Atoi(second)
	if err := errors.Join(err1, err2); err != nil || !found {
		return 0, 0, fmt.Errorf("kernel version %q is not MAJOR.MINOR", release)
	}
	return major, minor, nil
}

// counts is what became of the tests that have requirements.
type counts struct {
	mu      sync.Mutex
	passed  int
	skipped map[string]int
}

var requirements = counts{skipped: map[string]int{}}

func (c *counts) pass() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passed++
}

func (c *counts) skip(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skipped[reason]++
}

func (c *counts) report(w io.Writer) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return report(w, c.passed, c.skipped)
}

// report prints the closing line, also to the end of $ISOLATE_REPORT, as go test
// shows no output of packages that pass. It returns the exit code.
func report(w io.Writer, passed int, skipped map[string]int) int {
	line := summary(passed, skipped)
	fmt.Fprintln(w, line)
	if path := os.Getenv("ISOLATE_REPORT"); path != "" {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = fmt.Fprintln(file, line)
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			fmt.Fprintf(w, "write report: %v\n", err)
			return 1
		}
	}
	if len(skipped) > 0 && NoSkip() {
		return 1
	}
	return 0
}

func summary(passed int, skipped map[string]int) string {
	line := fmt.Sprintf("integration: %d passed", passed)
	if len(skipped) == 0 {
		return line + ", none skipped"
	}
	var reasons []string
	for _, reason := range slices.Sorted(maps.Keys(skipped)) {
		reasons = append(reasons, fmt.Sprintf("%s ×%d", reason, skipped[reason]))
	}
	return line + ", skipped: " + strings.Join(reasons, "; ")
}
