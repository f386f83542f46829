// SPDX-License-Identifier: Apache-2.0

package cgroup2

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// deviceNodes are what makeNodes makes. Only null may be opened.
var deviceNodes = map[string]struct {
	kind         uint32
	major, minor uint32
}{
	"console": {unix.S_IFCHR, 5, 1}, "tty0": {unix.S_IFCHR, 4, 0}, "kmsg": {unix.S_IFCHR, 1, 11}, "mem": {unix.S_IFCHR, 1, 1},
	"disk": {unix.S_IFBLK, 254, 0}, "null": {unix.S_IFCHR, 1, 3},
}

// makeNodes makes a directory of device nodes that everybody may open.
func makeNodes(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, n := range deviceNodes {
		path := filepath.Join(dir, name)
		if err := unix.Mknod(path, n.kind, int(unix.Mkdev(n.major, n.minor))); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// runFree runs the machine's free(1), copied to /volume by copyFree. That of the
// image asks the kernel and not /proc.
const runFree = "/volume/free/ld-* --library-path /volume/free /volume/free/free"

func copyFree(t *testing.T, volume string) {
	t.Helper()
	dir := filepath.Join(volume, "free")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	libraries := strings.Fields(rig.Exec(t.Context(), "ldd", "/usr/bin/free").Must(t))
	for _, path := range append(libraries, "/usr/bin/free") {
		if !filepath.IsAbs(path) {
			continue
		}
		content, err := os.ReadFile(path)
		if err == nil {
			err = testprogram.Write(filepath.Join(dir, filepath.Base(path)), string(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
