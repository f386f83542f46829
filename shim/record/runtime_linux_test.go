// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/isolate-shim/isolate/internal/testprogram"
)

func TestStopRuntime(t *testing.T) {
	t.Parallel()
	const deletes = "#!/bin/sh\n[ \"$*\" = \"--root $2 delete --force c1\" ] && rmdir $2/c1\n"
	for _, c := range []struct {
		name    string
		program string
		state   bool
		files   []string // the runtime's state, besides its directory
	}{
		{"deletes", deletes, true, nil},
		{"deletes and fails", deletes + "exit 1\n", true, nil},
		{"nothing to delete", "#!/bin/sh\necho called\nexit 1\n", false, nil},
		{"fails", "#!/bin/sh\necho cannot >&2\nexit 1\n", true, []string{"exec.fifo"}},
		{"does nothing", "#!/bin/sh\n", true, []string{"exec.fifo"}},
		{"cannot be executed", "", true, []string{"exec.fifo"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := sample(dir)
			r.Runtime = Runtime{Path: filepath.Join(dir, "runtime"), Root: filepath.Join(dir, "root")}
			if c.program != "" {
				if err := testprogram.Write(r.Runtime.Path, c.program); err != nil {
					t.Fatal(err)
				}
			} else if err := os.WriteFile(r.Runtime.Path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			state := filepath.Join(r.Runtime.Root, r.Namespace, r.ID)
			if c.state {
				if err := os.MkdirAll(state, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for _, f := range c.files {
				if err := os.WriteFile(filepath.Join(state, f), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := r.StopRuntime(t.Context())
			if _, stat := os.Lstat(state); err != nil || !errors.Is(stat, fs.ErrNotExist) {
				t.Errorf("%v; state: %v", err, stat)
			}
		})
	}
}
