// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for group, content := range map[string]string{
		"": "", "init": "12\n7\n", "docker/one": "40\n12\n", "docker/two": "41\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, group), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"cgroup.procs": content, "cgroup.threads": "99\n"} {
			if err := os.WriteFile(filepath.Join(dir, group, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := Processes(dir); err != nil || !slices.Equal(got, []int{7, 12, 40, 41}) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := Processes(filepath.Join(dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a group that is gone: %v, %v", got, err)
	}
}
