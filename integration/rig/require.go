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

	"github.com/isolate-shim/isolate/shim/apparmor"
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
	AppArmor Requirement = "apparmor"
	SELinux  Requirement = "selinux"
	// Long is asked for by ISOLATE_TEST_LONG=1: a test that takes so long, or needs
	// programs that take so long to build, that not every run is to have it.
	Long Requirement = "long"
)

// Kernel requires a kernel of at least that version, "6.15" for example.
func Kernel(version string) Requirement { return Requirement("kernel " + version) }

// Command requires a program of the machine.
func Command(name string) Requirement { return Requirement("command " + name) }

// NoSkip tells whether a skipped test is a failed one.
func NoSkip() bool { return os.Getenv("ISOLATE_NO_SKIP") != "" }

// noSkipButOfKernel is the value of ISOLATE_NO_SKIP, for kernels of all ages, that
// still lets those tests be skipped which declare that this one is too old.
const noSkipButOfKernel = "kernel"

// lack is what a machine does not have of what a test requires.
type lack struct {
	what string
	// ofKernel is set if the requirement declares that this kernel is too old.
	ofKernel bool
	// unasked is set if nothing is missing but that somebody asks for the test.
	unasked bool
}

// fails tells whether it is a failure where no test may be skipped.
func (l lack) fails() bool {
	return NoSkip() && !l.unasked && (!l.ofKernel || os.Getenv("ISOLATE_NO_SKIP") != noSkipButOfKernel)
}

// Require skips a test unless all requirements are met, and counts it. Each
// integration test calls it first.
func Require(t testing.TB, list ...Requirement) {
	t.Helper()
	for _, requirement := range list {
		missing, err := requirement.check()
		switch {
		case err != nil:
			t.Fatal(err)
		case missing == nil:
		case missing.fails():
			requirements.skip(*missing)
			t.Fatalf("needs %s: %s (ISOLATE_NO_SKIP is set)", requirement, missing.what)
		default:
			requirements.skip(*missing)
			t.Skipf("needs %s: %s", requirement, missing.what)
		}
	}
	t.Cleanup(func() {
		if !t.Failed() && !t.Skipped() {
			requirements.pass()
		}
	})
}

// check returns what is missing, or an error if the requirement is unknown or it
// could not be found out.
func (r Requirement) check() (missing *lack, err error) {
	kind, argument, _ := strings.Cut(string(r), " ")
	switch {
	case r == Root:
		if os.Geteuid() != 0 {
			return &lack{what: "not root"}, nil
		}
	case r == FUSE:
		if _, err := os.Stat("/dev/fuse"); err != nil {
			return &lack{what: "no /dev/fuse"}, nil //nolint:nilerr // that is the answer
		}
	case r == CgroupV1 || r == CgroupV2:
		_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
		if v2 := err == nil; v2 != (r == CgroupV2) {
			return &lack{what: "machine has another cgroup version"}, nil
		}
	case r == Long:
		if os.Getenv("ISOLATE_TEST_LONG") != "1" {
			return &lack{what: "long, runs with ISOLATE_TEST_LONG=1", unasked: true}, nil
		}
	case features[r] != nil:
		return checkFeature(r)
	case r == AppArmor:
		if !apparmor.Enabled() {
			return &lack{what: "kernel runs without AppArmor"}, nil
		}
	case r == SELinux:
		// Only a kernel that has it on knows its file system.
		if known, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(known), "\tselinuxfs\n") {
			return &lack{what: "kernel runs without SELinux"}, nil //nolint:nilerr // that is the answer
		}
	case kind == "kernel":
		old, release, err := olderThan(argument)
		if err != nil {
			return nil, fmt.Errorf("unknown requirement: %w", err)
		}
		if old {
			return &lack{what: "kernel is " + release, ofKernel: true}, nil
		}
	case kind == "command" && argument != "":
		if _, err := exec.LookPath(argument); err != nil {
			return &lack{what: "no " + argument}, nil //nolint:nilerr // that is the answer
		}
	default:
		return nil, fmt.Errorf("unknown requirement %q", r)
	}
	return nil, nil
}

// olderThan tells whether the kernel is, and its release.
func olderThan(version string) (old bool, release string, err error) {
	wantMajor, wantMinor, err := parseKernel(version)
	if err != nil {
		return false, "", err
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return false, "", fmt.Errorf("uname: %w", err)
	}
	release = unix.ByteSliceToString(name.Release[:])
	major, minor, err := parseKernel(release)
	if err != nil {
		return false, "", err
	}
	return major < wantMajor || major == wantMajor && minor < wantMinor, release, nil
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
	fails   bool // one of the skipped may not be
}

var requirements = counts{skipped: map[string]int{}}

func (c *counts) pass() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passed++
}

func (c *counts) skip(missing lack) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skipped[missing.what]++
	c.fails = c.fails || missing.fails()
}

func (c *counts) report(w io.Writer) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return report(w, c.passed, c.skipped, c.fails)
}

// report prints the closing line, also to the end of $ISOLATE_REPORT, as go test
// shows no output of packages that pass. It returns the exit code.
func report(w io.Writer, passed int, skipped map[string]int, fails bool) int {
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
	if fails {
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
