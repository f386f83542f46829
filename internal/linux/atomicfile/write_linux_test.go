// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	write := func(data string, mode os.FileMode) error { return Write(path, []byte(data), mode) }
	durably := func(data string, mode os.FileMode) error { return WriteDurably(path, []byte(data), mode) }
	for _, c := range []struct {
		data string
		mode os.FileMode
		by   func(string, os.FileMode) error
	}{{"new", 0o600, write}, {"program", 0o755, durably}, {"", 0o640, write}} {
		if err := c.by(c.data, c.mode); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil || string(data) != c.data {
			t.Errorf("%q, %v, want %q", data, err, c.data)
		}
		if st, err := os.Stat(path); err != nil || st.Mode() != c.mode {
			t.Errorf("%v, %v, want %v", st.Mode(), err, c.mode)
		}
		alone(t, path)
	}
}

// TestFailedWrite leaves the old file, and nothing else.
func TestFailedWrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("cannot")
	if err := Write(path, []byte("new"), 0o600, func(*os.File) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "old" {
		t.Errorf("%q, %v", data, err)
	}
	alone(t, path)
	if err := Write(filepath.Dir(path), nil, 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	alone(t, path)
	if err := WriteDurably(path+"/x", nil, 0o600); err == nil {
		t.Error("written below a file")
	}
}

// TestSweep removes what this version and earlier ones leave, and no more.
func TestSweep(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	for _, name := range []string{"file", ".file", ".file-123"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(path); err != nil {
		t.Fatal(err)
	}
	alone(t, path)
}

func TestSyncDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := errors.Join(SyncDir(dir), SyncDir(dir+"/none")); err != nil {
		t.Error(err)
	}
	if err := SyncDir(dir + "/\x00"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

func alone(t *testing.T, path string) {
	t.Helper()
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("in its directory are %v, %v", entries, err)
	}
}
