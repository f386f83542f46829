// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// configFile is the shim's configuration.
const configFile = "/etc/isolate/config.toml"

// Configure sets the shim's configuration of all later containers, until the test
// ends. The file is then as it was before.
func Configure(t testing.TB, toml string) {
	t.Helper()
	before, err := os.ReadFile(configFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := WriteConfig(toml); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		restore := func() error { return os.WriteFile(configFile, before, 0o644) }
		if before == nil {
			restore = func() error { return os.RemoveAll(configFile) }
		}
		if err := restore(); err != nil {
			t.Error(err)
		}
	})
}

// WriteConfig sets the shim's configuration for good.
func WriteConfig(toml string) error {
	return errors.Join(os.MkdirAll(filepath.Dir(configFile), 0o755), os.WriteFile(configFile, []byte(toml), 0o644))
}
