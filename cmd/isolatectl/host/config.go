// SPDX-License-Identifier: Apache-2.0

package host

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"

	"github.com/pelletier/go-toml/v2"
)

// Config is a configuration of containerd, in the versions 2 to 4 of the format,
// which are those of containerd 1.7 to 2.4: what a file says, or what is in effect.
type Config map[string]any

// The plugins of the Kubernetes interface: containerd 2 has its own for images and
// runtimes, and reads the old one from files of version 2 alone.
const (
	criV2     = "io.containerd.grpc.v1.cri"
	criV3     = "io.containerd.cri.v1.runtime"
	criImages = "io.containerd.cri.v1.images"
)

// ParseConfig reads a configuration.
func ParseConfig(text []byte) (Config, error) {
	var c Config
	err := toml.Unmarshal(text, &c)
	return c, err
}

// Version is that of the format, 1 if it is not said.
func (c Config) Version() int {
	if v, ok := c["version"].(int64); ok && v > 0 && v < 100 {
		return int(v)
	}
	return 1
}

// Imports are the patterns of further files.
func (c Config) Imports() []string { return texts(c, "imports") }

// NoCRI tells whether the Kubernetes interface is switched off.
func (c Config) NoCRI() bool {
	return slices.ContainsFunc(texts(c, "disabled_plugins"), func(name string) bool {
		return slices.Contains([]string{"cri", criV2, criV3}, name)
	})
}

// optPlugin has a directory of programs, which it puts before containerd's PATH.
const optPlugin = "io.containerd.internal.v1.opt"

// optDir is that directory, "" if the plugin is switched off. The environment of a
// process, as the kernel shows it, is the one that it was started with.
func (c Config) optDir() string {
	if slices.ContainsFunc(texts(c, "disabled_plugins"), func(name string) bool { return name == "opt" || name == optPlugin }) {
		return ""
	}
	return filepath.Join(cmp.Or(text(table(c, "plugins", optPlugin), "path"), "/opt/containerd"), "bin")
}

// Handlers are the runtimes that the Kubernetes interface has, by name.
func (c Config) Handlers() []Handler { return c.handlersOf(criPlugin(c.Version())) }

// Written are the handlers in the tables of all versions, of which no containerd
// reads more than one.
func (c Config) Written() []Handler {
	return slices.Concat(c.handlersOf("cri"), c.handlersOf(criV2), c.handlersOf(criV3))
}

// criPlugin is the plugin that has the handlers in a version of the format.
func criPlugin(version int) string {
	if version > 2 {
		return criV3
	}
	return criV2
}

func (c Config) handlersOf(plugin string) []Handler {
	runtimes := table(c, "plugins", plugin, "containerd", "runtimes")
	// Handlers that name no snapshotter have this one.
	snapshotter := text(table(c, "plugins", criImages), "snapshotter")
	if plugin != criV3 {
		snapshotter = text(table(c, "plugins", plugin, "containerd"), "snapshotter")
	}
	var found []Handler
	for _, name := range slices.Sorted(maps.Keys(runtimes)) {
		rt := table(runtimes, name)
		if rt == nil {
			continue
		}
		found = append(found, Handler{
			Name: name, Type: text(rt, "runtime_type"), Path: text(rt, "runtime_path"),
			Snapshotter: cmp.Or(text(rt, "snapshotter"), snapshotter),
			Annotations: texts(rt, "pod_annotations"), Options: table(rt, "options"),
		})
	}
	return found
}

// address is that of containerd's socket, "" for its default.
func (c Config) address() string {
	// The first is the name in version 4.
	return cmp.Or(text(table(c, "plugins", "io.containerd.server.v1.grpc"), "address"), text(table(c, "grpc"), "address"))
}

// table is a table in tables, nil if it is not there or not a table.
func table(t map[string]any, path ...string) map[string]any {
	for _, key := range path {
		inner, ok := t[key].(map[string]any)
		if !ok {
			return nil
		}
		t = inner
	}
	return t
}

// text is a string in a table, "" if it is not there or not a string.
func text(t map[string]any, key string) string {
	s, _ := t[key].(string)
	return s
}

// texts are the strings of an array in a table.
func texts(t map[string]any, key string) []string {
	list, _ := t[key].([]any)
	var out []string
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}
