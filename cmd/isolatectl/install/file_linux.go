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
)

// sumOf is the SHA-256 sum of some bytes.
func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// sumAt is that of a file, "" if there is none.
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

// replaceFile writes a file in one step for readers and for whoever executes it,
// and so that a crash leaves the old or the new one.
func replaceFile(path string, data []byte, mode os.FileMode) (retErr error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".isolate-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if retErr != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
			retErr = fmt.Errorf("write %s: %w", path, retErr)
		}
	}()
	if _, err := tmp.Write(data); err != nil {
		return err
	}
	if err := errors.Join(tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// removeFile removes a file for good; that there is none is no error.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // nothing was written by it
	return f.Sync()
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

// readThrough reads a file and says where it really is, for a link to it is to
// stay one.
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
