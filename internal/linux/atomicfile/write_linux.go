// SPDX-License-Identifier: Apache-2.0

// Package atomicfile replaces files in one step: a process that reads or executes such
// a file sees the old or the new one.
//
// It is not continuity.AtomicWriteFile. That waits for the disk for files that need not
// survive a crash, does not sync the directory for files that must, leaves its
// temporary file behind after an error, and cannot give the file a group.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write writes a file. A crash of the machine may leave an empty one. The functions
// prepare are called before the file gets its mode and its name.
func Write(path string, data []byte, mode os.FileMode, prepare ...func(*os.File) error) (retErr error) {
	// Programs that read all files of a directory skip names with a dot in front.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(fmt.Errorf("write %s: %w", path, retErr), os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	for _, do := range append(prepare, func(f *os.File) error { return f.Chmod(mode) }) {
		if err == nil {
			err = do(f)
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// WriteDurably is [Write] for a file that must survive a crash of the machine. A crash
// during the call leaves the old or the new file.
func WriteDurably(path string, data []byte, mode os.FileMode) error {
	if err := Write(path, data, mode, (*os.File).Sync); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes renames and removals in a directory survive a crash of the machine. A
// directory that does not exist is no error.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Sweep removes the temporary files that killed writers of the file have left beside it.
// No process may be writing the file.
func Sweep(path string) error {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"*"))
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}
