// SPDX-License-Identifier: Apache-2.0

package testmounts

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Dir returns a directory on the machine's disk that a mapped root can
// reach, which t.TempDir is not.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// Mkdir makes a directory and those above it.
func Mkdir(tb testing.TB, path string) {
	tb.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		tb.Fatal(err)
	}
}

// Write writes a file, in a directory that it makes.
func Write(tb testing.TB, path, content string) {
	tb.Helper()
	Mkdir(tb, filepath.Dir(path))
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		tb.Fatal(err)
	}
}

// Owner returns "uid:gid" as the calling process sees them.
func Owner(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

// WantOwner checks an [Owner].
func WantOwner(tb testing.TB, path, want string) {
	tb.Helper()
	if got := Owner(path); got != want {
		tb.Errorf("owner of %s is %s, want %s", path, got, want)
	}
}
