// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// The names under which the host knows isolate.
const (
	// ShimName is the program that containerd starts.
	ShimName = "containerd-shim-isolate-v1"
	// RuntimeType is how containerd names the shim.
	RuntimeType = "io.containerd.isolate.v1"
	// HandlerName is what a RuntimeClass names.
	HandlerName = "isolate"
)

// Handler is a runtime of containerd's Kubernetes interface. RuntimeClasses name
// it.
type Handler struct {
	Name string
	Type string // runtime_type
	// Path is the shim's (runtime_path), "" if containerd finds it by its type.
	Path        string
	Snapshotter string
	Annotations []string // of pods that the runtime is shown: patterns of path.Match
	Options     map[string]any
}

// Option is an option that is a string, "" if there is none.
func (h Handler) Option(name string) string { return text(h.Options, name) }

// TOML returns the handler as lines of a configuration file. It has no options
// table: with one, containerd fails to start pods with hostUsers: false (it cannot
// tell whose options they are).
func (h Handler) TOML(version int) string {
	text := fmt.Sprintf("[plugins.%q.containerd.runtimes.%s]\nruntime_type = %q\n", criPlugin(version), h.Name, h.Type)
	if h.Path != "" {
		text += fmt.Sprintf("runtime_path = %q\n", h.Path)
	}
	return text
}

// DropIn returns the handler as a file to be imported.
func (h Handler) DropIn(version int) string {
	return fmt.Sprintf("# Written by isolatectl install; isolatectl uninstall removes it.\nversion = %d\n\n%s", version, h.TOML(version))
}

// Handler is the handler of a name.
func (c Config) Handler(name string) (Handler, bool) {
	all := c.Handlers()
	if i := slices.IndexFunc(all, func(h Handler) bool { return h.Name == name }); i >= 0 {
		return all[i], true
	}
	return Handler{Name: name}, false
}

// SameBut tells whether two effective configurations agree in all but one handler
// and the list of imports.
func (c Config) SameBut(after Config, name string) bool {
	return reflect.DeepEqual(c.without(name), after.without(name))
}

// without returns a configuration without its imports and a handler. What it
// shares with the original is not changed.
func (c Config) without(name string) Config {
	out := maps.Clone(c)
	delete(out, "imports")
	for _, plugin := range []string{criV3, criV2} {
		path := []string{"plugins", plugin, "containerd", "runtimes"}
		if table(out, path...) == nil {
			continue
		}
		at := map[string]any(out)
		for _, key := range path {
			inner := maps.Clone(table(at, key))
			at[key] = inner
			at = inner
		}
		delete(at, name)
	}
	return out
}
