// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Dir holds the host's configuration.
const Dir = "/etc/isolate"

// Load reads <dir>/config.toml and then <dir>/config.d/*.toml in the order of
// their names. Either may be missing; a file that exists and cannot be read or parsed
// is an error. Names that start with a dot are left out, since editors and package
// managers leave such files behind.
func Load(dir string) (Config, Origins, error) {
	files, err := documents(dir)
	if err != nil {
		return Config{}, nil, err
	}
	c, origins := Default(), Origins{}
	for _, name := range files {
		body, err := ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) && filepath.Dir(name) == filepath.Clean(dir) {
			continue // no main file: the defaults are complete
		}
		if err != nil {
			return Config{}, nil, err
		}
		next, set, err := c.apply(name, body, false)
		if err != nil {
			return Config{}, nil, err
		}
		c = next
		maps.Copy(origins, set)
	}
	if err := c.verify("", origins); err != nil {
		return Config{}, nil, err
	}
	return c, origins, nil
}

// Overlay returns c with the document of a caller layered over it. Beside the keys
// of the host's files the document may have the keys of containerd's runc options:
// BinaryName, Root and SystemdCgroup set the [runtime] table, and package options reads
// the keys of a single task. name stands for the document in errors.
func (c Config) Overlay(name string, body []byte) (Config, error) {
	out, set, err := c.apply(name, body, true)
	if err != nil {
		return Config{}, err
	}
	return out, out.verify(name, set)
}

// verify joins the problems of c, each with the place where its key was set.
func (c Config) verify(name string, origins Origins) error {
	var errs []error
	for _, p := range c.problems() {
		p.Origin = cmp.Or(origins[p.Key], name)
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}

// documents lists the files that Load reads, first layer first.
func documents(dir string) ([]string, error) {
	files := []string{filepath.Join(dir, "config.toml")}
	dropIns := filepath.Join(dir, "config.d")
	entries, err := os.ReadDir(dropIns)
	if errors.Is(err, fs.ErrNotExist) {
		return files, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list configuration drop-ins: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".toml") && !strings.HasPrefix(e.Name(), ".") {
			files = append(files, filepath.Join(dropIns, e.Name()))
		}
	}
	slices.Sort(files[1:])
	return files, nil
}

// ReadFile reads a configuration file: a regular file of at most [MaxSize] bytes. It
// refuses any other file, because a FIFO or a device could hold up the caller for ever.
func ReadFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read configuration %q: not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration %q: %w", name, err)
	}
	if len(body) > MaxSize {
		return nil, fmt.Errorf("read configuration %q: larger than %d bytes", name, MaxSize)
	}
	return body, nil
}
