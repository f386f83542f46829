// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isolate-shim/isolate/integration/cache"
)

// Essential stands for all packages that Debian marks as essential, the
// smallest system in which maintainer scripts may run.
const Essential = "?essential"

// Package is one package of a closure.
type Package struct {
	Name    string
	Version string
}

// Closure is a set of packages with all they depend on.
type Closure []Package

// Version returns the version of one package, or "" if it is not there.
func (c Closure) Version(name string) string {
	for _, p := range c {
		if p.Name == name {
			return p.Version
		}
	}
	return ""
}

// Strings returns the closure in the form that cache keys take, sorted.
func (c Closure) Strings() []string {
	list := make([]string, 0, len(c))
	for _, p := range c {
		list = append(list, p.Name+"="+p.Version)
	}
	slices.Sort(list)
	return list
}

// Resolve tells which packages, with all they depend on, a suite holds now.
// Recommended packages are not part of it. The answer is remembered as long as
// the package lists are.
func Resolve(ctx context.Context, suite Suite, packages ...string) (Closure, error) {
	a, err := open(ctx, suite)
	if err != nil {
		return nil, err
	}
	memo := filepath.Join(a.dir, "resolved", url.PathEscape(strings.Join(packages, " ")))
	var closure Closure
	if text, err := os.ReadFile(memo); err == nil && json.Unmarshal(text, &closure) == nil {
		return closure, nil
	}
	out, err := cache.Command{Env: a.env()}.Output(ctx,
		slices.Concat([]string{"apt-get", "-y", "--print-uris", "install"}, packages)...)
	if err != nil {
		return nil, fmt.Errorf("resolve packages %q in %s: %w", packages, suite, err)
	}
	closure, err = parseURIs(out)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(closure)
	if err != nil {
		return nil, fmt.Errorf("encode closure: %w", err)
	}
	// It only saves time: a cache that cannot be written is no error.
	if err := os.MkdirAll(filepath.Dir(memo), 0o755); err == nil {
		_ = os.WriteFile(memo, text, 0o644)
	}
	return closure, nil
}

// parseURIs reads the lines "'address' name_version_arch.deb size hash" of
// apt-get --print-uris; all other lines are apt's remarks.
func parseURIs(out string) (Closure, error) {
	var closure Closure
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "'") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return nil, fmt.Errorf("apt printed %q, want an address and a file name", line)
		}
		parts := strings.Split(strings.TrimSuffix(fields[1], ".deb"), "_")
		if len(parts) != 3 {
			return nil, fmt.Errorf("apt printed file name %q, want name_version_arch.deb", fields[1])
		}
		version, err := url.PathUnescape(parts[1])
		if err != nil {
			return nil, fmt.Errorf("apt printed file name %q: %w", fields[1], err)
		}
		closure = append(closure, Package{Name: parts[0], Version: version})
	}
	return closure, nil
}

// Download fetches packages and all they depend on into a directory and
// returns the files. If status names a dpkg status file, what is installed
// there is left out.
func Download(ctx context.Context, suite Suite, status, dir string, packages ...string) ([]string, error) {
	a, err := open(ctx, suite)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "partial"), 0o755); err != nil {
		return nil, fmt.Errorf("make archive directory: %w", err)
	}
	argv := []string{
		"apt-get", "-y", "-q", "--download-only",
		"-o", "Dir::Cache::archives=" + dir,
		// A package cache next to the lists would be shared with other processes
		// that have another status file.
		"-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
		"-o", "Debug::NoLocking=1",
	}
	if status != "" {
		argv = append(argv, "-o", "Dir::State::status="+status)
	}
	var log bytes.Buffer
	if err := (cache.Command{Env: a.env(), Log: &log}).Run(ctx, slices.Concat(argv, []string{"install"}, packages)...); err != nil {
		return nil, fmt.Errorf("download packages %q of %s: %w\n%s", packages, suite, err, log.Bytes())
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return nil, fmt.Errorf("list downloaded packages: %w", err)
	}
	slices.Sort(files)
	return files, nil
}
