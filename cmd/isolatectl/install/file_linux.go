// SPDX-License-Identifier: Apache-2.0

package install

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
)

// sumOf is the SHA-256 sum of some bytes.
func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// sumAt is the checksum of a file, "" if there is no file.
func sumAt(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read file: %w", err)
	}
	return sumOf(data), nil
}

// removeFile removes a file for good; that there is none is no error.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove file: %w", err)
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// missingDirs returns the directories on the way to a file that do not exist,
// parents first.
func missingDirs(path string) ([]string, error) {
	dir := filepath.Dir(path)
	_, err := os.Stat(dir)
	if err == nil || dir == path {
		return nil, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for directory: %w", err)
	}
	above, err := missingDirs(dir)
	return append(above, dir), err
}

// readThrough reads a file and returns its real path, so that a link to it is kept when
// the file is replaced.
func readThrough(path string) (real, text string, mode os.FileMode, err error) {
	if real, err = filepath.EvalSymlinks(path); err != nil {
		return "", "", 0, fmt.Errorf("read file: %w", err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return "", "", 0, fmt.Errorf("read file: %w", err)
	}
	data, err := os.ReadFile(real)
	if err != nil {
		return "", "", 0, fmt.Errorf("read file: %w", err)
	}
	return real, string(data), info.Mode().Perm(), nil
}
