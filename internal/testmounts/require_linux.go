// SPDX-License-Identifier: Apache-2.0

package testmounts

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/isolate-shim/isolate/internal/linux/feature"
)

// RequireRoot declares that a test needs root, and with it the
// namespaces of [Run] or [Main].
func RequireRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root for mounts and user namespaces")
	}
}

// RequireFeature skips on a kernel without a feature, but fails if the kernel is
// one that should have it: a skip must not hide a bug.
func RequireFeature(tb testing.TB, p *feature.Probe) {
	tb.Helper()
	err := p.Check()
	switch {
	case err == nil:
	case errors.Is(err, feature.ErrNotSupported) && kernelOlderThan(tb, p.Version):
		tb.Skip(err)
	default:
		tb.Fatal(err)
	}
}

// WantProbes checks that each probe says so on a kernel that should have its feature,
// and that none leaves anything behind in dir.
func WantProbes(t *testing.T, dir string, probes ...*feature.Probe) {
	t.Helper()
	for _, p := range probes {
		t.Run(p.Name, func(t *testing.T) { RequireFeature(t, p) })
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if found := Lines(t, dir); found != "" {
		t.Errorf("mounts left:\n%s", found)
	}
}

func kernelOlderThan(tb testing.TB, version string) bool {
	tb.Helper()
	var haveMajor, haveMinor, wantMajor, wantMinor int
	if _, err := fmt.Sscanf(feature.Release(), "%d.%d", &haveMajor, &haveMinor); err != nil {
		tb.Fatal(err)
	}
	if _, err := fmt.Sscanf(version, "%d.%d", &wantMajor, &wantMinor); err != nil {
		tb.Fatal(err)
	}
	return haveMajor < wantMajor || haveMajor == wantMajor && haveMinor < wantMinor
}

// Check ends a test that cannot go on.
func Check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// Close closes what a test is done with.
func Close(tb testing.TB, c io.Closer) {
	tb.Helper()
	if err := c.Close(); err != nil {
		tb.Error(err)
	}
}
