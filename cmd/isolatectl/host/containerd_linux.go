// SPDX-License-Identifier: Apache-2.0

package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DefaultAddress is the default socket of containerd.
const DefaultAddress = "/run/containerd/containerd.sock"

// Containerd is a containerd of the host.
type Containerd struct {
	Process // a zero PID if it does not run

	Version string // such as v2.4.2, "" if it does not run
	File    string // its main configuration file, which need not exist
	Root    string // where it keeps images
	Address string // its socket
	// Effective is its configuration: the files as they were when it was found,
	// merged by this containerd; nil if it cannot tell.
	Effective Config
}

// ErrNotRunning says that no containerd was found.
var ErrNotRunning = errors.New("no containerd is running, or none in this pid namespace")

// FindContainerd returns the containerd that serves an address. Docker runs one
// too, on an address of its own.
func FindContainerd(ctx context.Context, address string) (Containerd, error) {
	var others []string
	for _, p := range Find("/proc", "containerd") {
		d, err := InspectContainerd(ctx, p)
		if err != nil {
			continue // it has ended, or is another program of that name
		}
		if d.Address == address {
			return d, nil
		}
		others = append(others, d.Address)
	}
	if len(others) > 0 {
		return Containerd{}, fmt.Errorf("no containerd serves %s, but one serves %s: name that by --address", address, strings.Join(others, ", "))
	}
	return Containerd{}, fmt.Errorf("%w: start it, and use hostPID: true in a pod", ErrNotRunning)
}

// InspectContainerd asks the program of a process for its version and
// configuration. It is an error if the program is not containerd. If it cannot print
// its configuration, its command line and the defaults count.
func InspectContainerd(ctx context.Context, p Process) (Containerd, error) {
	d := Containerd{Process: p}.with(nil)
	printed, err := d.Run(ctx, "--version")
	if err != nil {
		return d, err
	}
	// "containerd github.com/containerd/containerd/v2 v2.4.2 <revision>"
	fields := strings.Fields(string(printed))
	if len(fields) < 3 || fields[0] != "containerd" {
		return d, fmt.Errorf("%q is not containerd", d.Exe)
	}
	d.Version = fields[2]
	if config, err := d.Dump(ctx); err == nil {
		d = d.with(config)
	}
	if bin := d.Effective.optDir(); bin != "" {
		d.Path = bin + ":" + d.Path
	}
	return d, nil
}

// IdleContainerd describes a containerd that does not run, by the configuration file
// at its usual place.
func IdleContainerd() (Containerd, error) {
	d := Containerd{Process: Process{Path: os.Getenv("PATH")}}.with(nil)
	data, err := os.ReadFile(d.File)
	if err != nil {
		return d, nil //nolint:nilerr // its defaults
	}
	config, err := ParseConfig(data)
	if err != nil {
		return d, fmt.Errorf("%s: %w", d.File, err)
	}
	return d.with(config), nil
}

// with takes each value from the command line, else from a configuration, else it sets
// the default, as containerd does.
func (d Containerd) with(config Config) Containerd {
	d.Effective = config
	d.File = flagValue(d.Args, "/etc/containerd/config.toml", "-c", "--config")
	d.Root = filepath.Clean(flagValue(d.Args, cmp.Or(text(config, "root"), "/var/lib/containerd"), "--root"))
	d.Address = flagValue(d.Args, cmp.Or(config.address(), DefaultAddress), "-a", "--address")
	return d
}

// Dump returns the effective configuration: the files as they are now, merged by
// this containerd.
func (d Containerd) Dump(ctx context.Context) (Config, error) {
	args := []string{"config", "dump"}
	if _, err := os.Stat(d.File); err == nil {
		args = slices.Insert(args, 0, "--config", d.File)
	}
	printed, err := d.Run(ctx, args...)
	if err != nil {
		return nil, fmt.Errorf("%s config dump: %w", d.Exe, err)
	}
	config, err := ParseConfig(printed)
	if err != nil {
		return nil, fmt.Errorf("%s config dump: %w", d.Exe, err)
	}
	return config, nil
}

// Changed is a configuration file that is newer than the process, "" for none.
func (d Containerd) Changed() string {
	files := []string{d.File}
	for _, pattern := range d.Effective.Imports() {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(d.File), pattern)
		}
		more, err := filepath.Glob(pattern)
		if err == nil {
			files = append(files, more...)
		}
	}
	if i := slices.IndexFunc(files, d.Older); i >= 0 {
		return files[i]
	}
	return ""
}

// Program returns the program that containerd starts for a shim's name: from its
// PATH, else from beside its own program.
func (d Containerd) Program(shim string) (string, error) {
	dirs := filepath.SplitList(d.Path)
	if d.Exe != "" {
		dirs = append(dirs, filepath.Dir(d.Exe))
	}
	for _, dir := range dirs {
		if file := filepath.Join(dir, shim); Executable(file) == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s is not in %s", shim, strings.Join(dirs, ":"))
}

// Executable tells why a file cannot be executed, nil if it can.
func Executable(file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", file)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable", file)
	}
	return nil
}
