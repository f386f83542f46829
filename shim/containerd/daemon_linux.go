// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// Daemon is a running containerd.
type Daemon struct {
	PID     int
	Exe     string // its program
	Path    string // its PATH
	Version string // such as v2.4.2
	Config  string // its main configuration file, which need not exist
	Address string // its socket
}

// ErrNotRunning says that no containerd was found.
var ErrNotRunning = errors.New("no containerd is running, or none in this pid namespace")

// Find returns the containerd that serves an address. Docker runs one too, on an
// address of its own.
func Find(ctx context.Context, address string) (Daemon, error) {
	var others []string
	for _, pid := range processes("containerd") {
		d, err := inspect(ctx, pid)
		if err != nil {
			continue // it has ended, or is another program of that name
		}
		if d.Address == address {
			return d, nil
		}
		others = append(others, d.Address)
	}
	if len(others) > 0 {
		return Daemon{}, fmt.Errorf("no containerd serves %s, but one serves %s: name that by --address", address, strings.Join(others, ", "))
	}
	return Daemon{}, fmt.Errorf("%w: start it, and use hostPID: true in a pod", ErrNotRunning)
}

// program stays good for executing when the file has been replaced.
func (d Daemon) program() string { return fmt.Sprintf("/proc/%d/exe", d.PID) }

func inspect(ctx context.Context, pid int) (Daemon, error) {
	d := Daemon{PID: pid, Config: "/etc/containerd/config.toml", Address: "/run/containerd/containerd.sock"}
	var err error
	if d.Exe, err = os.Readlink(d.program()); err != nil {
		return d, err
	}
	printed, err := output(ctx, d.program(), "--version")
	if err != nil {
		return d, err
	}
	// "containerd github.com/containerd/containerd/v2 v2.4.2 <revision>"
	fields := strings.Fields(string(printed))
	if len(fields) < 3 || fields[0] != "containerd" {
		return d, fmt.Errorf("%q is not containerd", d.Exe)
	}
	d.Version = fields[2]
	args, err := nulls(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return d, err
	}
	env, err := nulls(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return d, err
	}
	for _, e := range env {
		if p, ok := strings.CutPrefix(e, "PATH="); ok {
			d.Path = p
		}
	}
	d.Config = flagValue(args, d.Config, "-c", "--config")
	if config, err := d.Dump(ctx); err == nil {
		if a := configuredAddress(config); a != "" {
			d.Address = a
		}
	}
	d.Address = flagValue(args, d.Address, "-a", "--address") // wins, as in containerd
	return d, nil
}

// Dump returns the effective configuration: the files as they are now, merged by
// this containerd.
func (d Daemon) Dump(ctx context.Context) (map[string]any, error) {
	args := []string{"config", "dump"}
	if _, err := os.Stat(d.Config); err == nil {
		args = slices.Insert(args, 0, "--config", d.Config)
	}
	printed, err := output(ctx, d.program(), args...)
	if err != nil {
		return nil, fmt.Errorf("%s config dump: %w", d.Exe, err)
	}
	var config map[string]any
	if err := toml.Unmarshal(printed, &config); err != nil {
		return nil, fmt.Errorf("%s config dump: %w", d.Exe, err)
	}
	return config, nil
}

// FormatVersion is the newest version of the configuration format that a
// containerd reads, by its effective configuration.
func FormatVersion(config map[string]any) (int, error) {
	version, ok := config["version"].(int64)
	if !ok || version < 2 {
		return 0, fmt.Errorf("containerd config dump: version %v is not understood", config["version"])
	}
	return int(version), nil
}

func configuredAddress(config map[string]any) string {
	// The first is that of version 4.
	for _, t := range []map[string]any{table(table(config, "plugins"), "io.containerd.server.v1.grpc"), table(config, "grpc")} {
		if a, ok := t["address"].(string); ok && a != "" {
			return a
		}
	}
	return ""
}

// flagValue returns the value of the last of some flags on a command line. Long
// ones work with one dash as well.
func flagValue(args []string, value string, names ...string) string {
	for i, arg := range args {
		name, inline, has := strings.Cut(arg, "=")
		if len(name) > 2 && strings.HasPrefix(name, "-") && !strings.HasPrefix(name, "--") {
			name = "-" + name
		}
		switch {
		case !slices.Contains(names, name):
		case has:
			value = inline
		case i+1 < len(args):
			value = args[i+1]
		}
	}
	return value
}

// processes returns those with a command name.
func processes(comm string) []int {
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil
	}
	var found []int
	for _, file := range files {
		name, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(name)) != comm {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			found = append(found, pid)
		}
	}
	return found
}

// output runs a program that is known to end.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return out, nil
}

// nulls reads a file of strings that end with a NUL byte.
func nulls(file string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimRight(string(data), "\x00"), "\x00"), nil
}
