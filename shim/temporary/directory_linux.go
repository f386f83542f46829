// SPDX-License-Identifier: Apache-2.0

package temporary

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/isolate-shim/isolate/internal/linux/proc"
)

const variable = "XDG_RUNTIME_DIR"

// parent is the directory of all shims' directories, below isolate's.
const parent = ".tmp"

// original is the variable as whoever started this process has set it.
var original, isSet = os.LookupEnv(variable)

// The environment is the whole process's, and so is this.
var (
	mu    sync.Mutex
	users int // of the directory
)

// Use makes this process's directory below isolate's, root, and has upstream write its
// temporary files there until done is called by all users. Without it they are where they
// would be anyway.
func Use(root string) (done func(), err error) {
	mu.Lock()
	defer mu.Unlock()
	dir, err := makeDir(root)
	if err == nil {
		err = os.Setenv(variable, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("make a directory for temporary files: %w", err)
	}
	users++
	return func() {
		mu.Lock()
		defer mu.Unlock()
		if users--; users > 0 {
			return
		}
		if isSet {
			_ = os.Setenv(variable, original)
		} else {
			_ = os.Unsetenv(variable)
		}
		_ = remove(dir) // else the next time, or by Sweep
	}, nil
}

func makeDir(root string) (dir string, err error) {
	own, err := self()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(root, parent, own)
	for range 10 { // the parent goes with the last of all shims, perhaps right now
		if err = os.MkdirAll(filepath.Dir(dir), 0o711); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	return dir, err
}

// self is the name of this process's directory.
var self = sync.OnceValues(func() (string, error) {
	p, err := proc.Open(os.Getpid())
	if err != nil {
		return "", err
	}
	return name(p.ID()), p.Close()
})

// remove removes a directory, and the parent with the last one.
func remove(dir string) error {
	err := os.RemoveAll(dir)
	_ = os.Remove(filepath.Dir(dir))
	return err
}

const format = "%d-%d"

func name(p proc.ID) string { return fmt.Sprintf(format, p.PID, p.Start) }

// Left returns the directories of processes that have ended.
func Left(root string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(root, parent))
	if errors.Is(err, fs.ErrNotExist) { // nearly always
		return nil, nil
	}
	var dirs []string
	errs := []error{err}
	for _, e := range entries {
		var p proc.ID
		if _, err := fmt.Sscanf(e.Name(), format, &p.PID, &p.Start); err != nil || name(p) != e.Name() {
			continue // nobody's
		}
		alive, err := p.Alive()
		if err == nil && !alive {
			dirs = append(dirs, filepath.Join(root, parent, e.Name()))
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return dirs, fmt.Errorf("look for temporary files of ended shims: %w", err)
	}
	return dirs, nil
}

// Sweep removes the directories of processes that have ended.
func Sweep(root string) error {
	dirs, err := Left(root)
	errs := []error{err}
	for _, dir := range dirs {
		if err := remove(dir); err != nil {
			errs = append(errs, fmt.Errorf("remove temporary files of an ended shim: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Environ returns the environment for a program of others: as this process got it.
func Environ(own []string) []string {
	env := slices.DeleteFunc(slices.Clone(own), func(entry string) bool { return strings.HasPrefix(entry, variable+"=") })
	if isSet {
		env = append(env, variable+"="+original)
	}
	return env
}
