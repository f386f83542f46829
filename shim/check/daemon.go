// SPDX-License-Identifier: Apache-2.0

package check

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// daemon is a containerd.
type daemon struct {
	PID     int    // 0 if none runs and these are the defaults
	Exe     string // where its program is
	Path    string // its PATH
	Version string // as it prints it
	Label   string // of the security module
	settings
}

// settings are the parts of containerd's configuration that matter here.
type settings struct {
	Config  string // file
	Root    string
	Address string
	// Tables are the CRI runtimes of isolate that have an options table.
	Tables []string
}

// defaults are containerd's.
func defaults() settings {
	return settings{Config: "/etc/containerd/config.toml", Root: "/var/lib/containerd", Address: "/run/containerd/containerd.sock"}
}

// withArgs layers containerd's command line over s.
func (s settings) withArgs(args []string) settings {
	fields := map[string]*string{
		"-c": &s.Config, "--config": &s.Config, "--root": &s.Root, "-a": &s.Address, "--address": &s.Address,
	}
	for i, arg := range args {
		name, value, inline := strings.Cut(arg, "=")
		// containerd's long flags work with one dash as well.
		if len(name) > 2 && !strings.HasPrefix(name, "--") {
			name = "-" + name
		}
		field, ok := fields[name]
		switch {
		case !ok:
		case inline:
			*field = value
		case i+1 < len(args):
			*field = args[i+1]
		}
	}
	s.Root = filepath.Clean(s.Root)
	return s
}

// dump is what `containerd config dump` prints, in the versions 2 to 4 of the
// file: those of containerd 1.7 to 2.4.
type dump struct {
	Root string
	GRPC struct{ Address string }

	Plugins map[string]map[string]any
}

// withDump layers the effective configuration file over s.
func (s settings) withDump(data []byte) (settings, error) {
	var d dump
	if err := toml.Unmarshal(data, &d); err != nil {
		return s, err
	}
	if d.Root != "" {
		s.Root = d.Root
	}
	if d.GRPC.Address != "" {
		s.Address = d.GRPC.Address
	}
	if a, ok := d.Plugins["io.containerd.server.v1.grpc"]["address"].(string); ok && a != "" {
		s.Address = a // version 4
	}
	for _, plugin := range []string{"io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"} {
		runtimes := table(table(d.Plugins[plugin], "containerd"), "runtimes")
		for name := range runtimes {
			rt := table(runtimes, name)
			if rt["runtime_type"] == runtimeName && len(table(rt, "options")) > 0 {
				s.Tables = append(s.Tables, name)
			}
		}
	}
	slices.Sort(s.Tables)
	return s, nil
}

// runtimeName is how containerd knows the shim.
const runtimeName = "io.containerd.isolate.v1"

// table is a table in a table, nil if it is not there or not a table.
func table(t map[string]any, key string) map[string]any {
	sub, ok := t[key].(map[string]any)
	if !ok {
		return nil
	}
	return sub
}

// parseVersion finds the version in what `containerd --version` prints:
// "containerd github.com/containerd/containerd/v2 v2.4.2 <revision>". It returns
// the major and minor numbers as well, and false if there are none.
func parseVersion(line string) (version string, major, minor int, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return "", 0, 0, false
	}
	version = fields[2]
	numbers := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(numbers) < 2 {
		return version, 0, 0, false
	}
	major, err1 := strconv.Atoi(numbers[0])
	minor, err2 := strconv.Atoi(numbers[1])
	return version, major, minor, err1 == nil && err2 == nil
}
