// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// defaultPath is searched when a process has no PATH: what Debian and containerd
// use for root.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// known are the runtimes that are looked for when nobody named one, best first.
var known = []string{"runc", "crun"}

// ErrNotFound is returned, wrapped, when there is no runtime to use.
var ErrNotFound = errors.New("OCI runtime not found")

// Finder finds runtimes and remembers what they say of themselves.
type Finder struct {
	// CacheDir is where; usually [CacheDir].
	CacheDir string
}

// Find returns the runtime that a container gets: the one its request names
// (BinaryName), else the configured one (runtime.binary), else runc, else crun.
// A name that was given and is not there is an error; no other one is taken in
// its place. Names without a slash are looked up in path, which has the form of
// $PATH.
func (f Finder) Find(ctx context.Context, requested, configured, path string) (Binary, error) {
	file, err := locate(requested, configured, path)
	if err != nil {
		return Binary{}, err
	}
	return f.Inspect(ctx, file)
}

// locate is Find without asking the runtime.
func locate(requested, configured, path string) (string, error) {
	switch {
	case requested != "":
		return lookUp(requested, path, "the request's BinaryName; install it, or correct the request")
	case configured != "":
		return lookUp(configured, path, "runtime.binary; install it, or correct runtime.binary in the configuration of isolate")
	}
	for _, name := range known {
		if file, err := search(name, path); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("%w: neither %s is in %s; install runc, or set runtime.binary in /etc/isolate/config.toml",
		ErrNotFound, strings.Join(known, " nor "), searched(path))
}

// lookUp resolves one name that somebody gave; source says who.
func lookUp(name, path, source string) (string, error) {
	file := name
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			return "", fmt.Errorf("%w: %q (from %s) is neither an absolute path nor a plain name", ErrNotFound, name, source)
		}
		if err := executable(name); err != nil {
			return "", fmt.Errorf("%w: %q (from %s): %w", ErrNotFound, name, source, err)
		}
		return filepath.Clean(file), nil
	}
	file, err := search(name, path)
	if err != nil {
		return "", fmt.Errorf("%w: %q (from %s) is not in %s", ErrNotFound, name, source, searched(path))
	}
	return file, nil
}

// search looks for a name in path. Relative directories in it are not used: the
// shim's working directory is a container's bundle.
func search(name, path string) (string, error) {
	for _, dir := range filepath.SplitList(searched(path)) {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		if executable(file) == nil {
			return file, nil
		}
	}
	return "", os.ErrNotExist
}

func searched(path string) string {
	if path == "" {
		return defaultPath
	}
	return path
}

func executable(file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return errors.Unwrap(err) // the path is in the message already
	case !info.Mode().IsRegular():
		return errors.New("not a regular file")
	case info.Mode()&0o111 == 0:
		return errors.New("not executable")
	}
	return nil
}
