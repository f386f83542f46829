// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Containerd is a running containerd.
type Containerd struct {
	Process

	Version string // such as v2.4.2
	Config  string // its main configuration file, which need not exist
	Address string // its socket
}

// ErrNotRunning says that no containerd was found.
var ErrNotRunning = errors.New("no containerd is running, or none in this pid namespace")

// FindContainerd returns the containerd that serves an address. Docker runs one too, on an
// address of its own.
func FindContainerd(ctx context.Context, address string) (Containerd, error) {
	var others []string
	for _, p := range Find("/proc", "containerd") {
		d, err := inspect(ctx, p)
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

func inspect(ctx context.Context, p Process) (Containerd, error) {
	d := Containerd{Process: p, Config: "/etc/containerd/config.toml", Address: "/run/containerd/containerd.sock"}
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
	d.Config = flagValue(d.Args, d.Config, "-c", "--config")
	if config, err := d.Dump(ctx); err == nil {
		if a := configuredAddress(config); a != "" {
			d.Address = a
		}
	}
	d.Address = flagValue(d.Args, d.Address, "-a", "--address") // wins, as in containerd
	return d, nil
}

// Dump returns the effective configuration: the files as they are now, merged by
// this containerd.
func (d Containerd) Dump(ctx context.Context) (map[string]any, error) {
	args := []string{"config", "dump"}
	if _, err := os.Stat(d.Config); err == nil {
		args = slices.Insert(args, 0, "--config", d.Config)
	}
	printed, err := d.Run(ctx, args...)
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
	// The first is the name in version 4.
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
