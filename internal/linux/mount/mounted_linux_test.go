// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/internal/testmounts"
)

func mountAt(t *testing.T, path string) *Mount {
	t.Helper()
	m, err := At(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestReplaceUnmounted: a mount that its owner has unmounted meanwhile is not
// replaced by another one, which nobody would unmount.
func TestReplaceUnmounted(t *testing.T) {
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	testmounts.Overlay(t, dir, "")
	m := mountAt(t, dir+"/merged")
	testmounts.Unmount(t, dir+"/merged")
	placeholder, err := newPlaceholder("placeholder")
	testmounts.Check(t, err)
	if err := m.Replace(placeholder); !errors.Is(err, ErrDetached) {
		t.Errorf("replace: %v", err)
	}
	if err := m.replaceStepwise(placeholder); !errors.Is(err, ErrDetached) {
		t.Errorf("replace stepwise: %v", err)
	}
	if err := m.Unmount(); !errors.Is(err, ErrDetached) {
		t.Errorf("unmount: %v", err)
	}
	testmounts.Check(t, errors.Join(m.Close(), placeholder.Close()))
	if lines := testmounts.Lines(t, dir+"/merged"); lines != "" {
		t.Errorf("left:\n%s", lines)
	}
}

// TestReplaceStepwise is for kernels that cannot attach beneath.
func TestReplaceStepwise(t *testing.T) {
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	testmounts.Overlay(t, dir, "")
	placeholder, err := newPlaceholder("placeholder")
	testmounts.Check(t, err)
	m := mountAt(t, dir+"/merged")
	testmounts.Check(t, errors.Join(m.replaceStepwise(placeholder), m.Close(), placeholder.Close()))
	if lines := testmounts.Lines(t, dir+"/merged"); strings.Count(lines, "\n") != 1 || !strings.Contains(lines, " placeholder ") {
		t.Errorf("there is:\n%s", lines)
	}
	// What cannot be attached leaves the one that was there.
	file, err := os.Open(dir)
	testmounts.Check(t, err)
	m = mountAt(t, dir+"/merged")
	if err := m.replaceStepwise(file); err == nil {
		t.Error("attached a directory")
	}
	testmounts.Check(t, errors.Join(m.Close(), file.Close()))
	if lines := testmounts.Lines(t, dir+"/merged"); strings.Count(lines, "\n") != 1 || !strings.Contains(lines, " placeholder ") {
		t.Errorf("there is:\n%s", lines)
	}
}

func TestAtNothing(t *testing.T) {
	t.Parallel()
	if _, err := At(t.TempDir() + "/nothing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	m, err := At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close() //nolint:errcheck // O_PATH
	if m.IsRoot() {
		t.Errorf("a plain directory is the root of %+v", m.Info)
	}
}
