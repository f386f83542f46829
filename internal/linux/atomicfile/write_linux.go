// SPDX-License-Identifier: Apache-2.0

// Package atomicfile replaces files in one step: readers, and those who execute
// them, see the old or the new one.
//
// It is not continuity.AtomicWriteFile, which waits for the disk where nothing has to
// survive a crash, does not sync the directory where something has to, leaves its
// temporary file behind after an error, and cannot give the file a group.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write writes a file. A crash of the machine may leave an empty one. What is to be
// done to the file, before it has the mode and the name, is done by prepare.
func Write(path string, data []byte, mode os.FileMode, prepare ...func(*os.File) error) (retErr error) {
	// With a dot in front, as programs that read all of a directory skip such files.
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

// WriteDurably is Write, after which the file survives a crash of the machine; one
// that happens meanwhile leaves the old or the new file.
func WriteDurably(path string, data []byte, mode os.FileMode) error {
	if err := Write(path, data, mode, (*os.File).Sync); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes what was renamed and removed in a directory survive a crash of the
// machine. There may be no such directory.
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

// Sweep removes what killed processes that wrote the file have left beside it.
// Nobody may be writing it.
func Sweep(path string) error {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"*"))
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}
