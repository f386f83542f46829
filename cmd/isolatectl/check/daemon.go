// SPDX-License-Identifier: Apache-2.0

package check

import (
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
)

// daemon is a containerd.
type daemon struct {
	host.Process
	Version string // as it prints it
	Label   string // of the security module
	settings
}

// settings are the parts of containerd's configuration that matter here.
type settings struct {
	Config  string // file
	Root    string
	Address string
	Imports []string // patterns of further files
	CRI     cri
}

// cri is the Kubernetes interface of a containerd.
type cri struct {
	Off      bool
	Handlers []handler // by name
	Default  string    // name of the handler of pods that name none
	// Snapshotter is the one of handlers that name none.
	Snapshotter string
}

// defaults are containerd's.
func defaults() settings {
	return settings{Config: "/etc/containerd/config.toml", Root: "/var/lib/containerd", Address: defaultAddress}
}

const defaultAddress = "/run/containerd/containerd.sock"

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
	Version         int
	Root            string
	Imports         []string
	DisabledPlugins []string `toml:"disabled_plugins"`
	GRPC            struct{ Address string }

	Plugins map[string]map[string]any
}

// The tables of the Kubernetes interface: containerd 2 has its own for images
// and runtimes, and reads the old one from files of version 2 alone.
const (
	oldCRI     = "io.containerd.grpc.v1.cri"
	criRuntime = "io.containerd.cri.v1.runtime"
	criImages  = "io.containerd.cri.v1.images"
)

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
	if a := text(d.Plugins["io.containerd.server.v1.grpc"], "address"); a != "" {
		s.Address = a // version 4
	}
	s.Imports = d.Imports
	s.CRI = d.cri()
	return s, nil
}

func (d dump) cri() cri {
	var c cri
	for _, name := range []string{"cri", oldCRI, criRuntime} {
		c.Off = c.Off || slices.Contains(d.DisabledPlugins, name)
	}
	read, images := oldCRI, table(d.Plugins[oldCRI], "containerd")
	if d.Version > 2 {
		read, images = criRuntime, d.Plugins[criImages]
	}
	c.Snapshotter = text(images, "snapshotter")
	c.Default = text(table(d.Plugins[read], "containerd"), "default_runtime_name")
	c.Handlers = handlers(d.Plugins[read])
	return c
}

// handlers are the runtimes in a table of the Kubernetes interface.
func handlers(plugin map[string]any) []handler {
	runtimes := table(table(plugin, "containerd"), "runtimes")
	var found []handler
	for _, name := range slices.Sorted(maps.Keys(runtimes)) {
		rt := table(runtimes, name)
		if rt == nil {
			continue
		}
		found = append(found, handler{
			Name: name, Type: text(rt, "runtime_type"), Path: text(rt, "runtime_path"),
			Snapshotter: text(rt, "snapshotter"), Annotations: texts(rt, "pod_annotations"), Options: table(rt, "options"),
		})
	}
	return found
}

// written is what a configuration file says, which is not what is in effect.
type written struct {
	Version  int // 0 if there is no file, 1 if it does not say
	Handlers []handler
}

// parseWritten reads a file of whatever version.
func parseWritten(data []byte) (written, error) {
	d := dump{Version: 1}
	if err := toml.Unmarshal(data, &d); err != nil {
		return written{Version: 1}, err
	}
	return written{d.Version, slices.Concat(handlers(d.Plugins["cri"]), handlers(d.Plugins[oldCRI]), handlers(d.Plugins[criRuntime]))}, nil
}

// has tells whether a file has a handler of that name.
func (w written) has(name string) bool {
	return slices.ContainsFunc(w.Handlers, func(h handler) bool { return h.Name == name })
}

// lost is the name of a handler of ours in the file, "" if there is none. If the
// effective configuration has none, it is in the wrong place.
func (w written) lost() string {
	for _, h := range w.Handlers {
		if h.ours() {
			return h.Name
		}
	}
	return ""
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

// text is a string in a table, "" if it is not there or not a string.
func text(t map[string]any, key string) string {
	s, ok := t[key].(string)
	if !ok {
		return ""
	}
	return s
}

// texts are the strings of an array in a table.
func texts(t map[string]any, key string) []string {
	list, ok := t[key].([]any)
	if !ok {
		return nil
	}
	var out []string
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// parseVersion finds the version in what `containerd --version` prints:
// "containerd github.com/containerd/containerd/v2 v2.4.2 <revision>". It returns
// the major and minor numbers as well, and false if there are none.
func parseVersion(line string) (version string, major, minor int, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return "", 0, 0, false
	}
	version = strings.TrimSuffix(fields[2], ",")
	major, minor, ok = numbers(version)
	return version, major, minor, ok
}

// numbers are the first two of a version, such as "v2.4.2" or "26.1.5+dfsg1".
func numbers(version string) (major, minor int, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return 0, 0, false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return major, minor, err1 == nil && err2 == nil
}
