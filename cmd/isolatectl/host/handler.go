// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"maps"
	"reflect"
)

// The plugins that hold CRI runtimes, by the version of the format.
const (
	criV2 = "io.containerd.grpc.v1.cri"
	criV3 = "io.containerd.cri.v1.runtime"
)

// Handler is a CRI runtime, which Kubernetes calls a handler. It has no options
// table: with one, containerd fails to start pods with hostUsers: false (it
// cannot tell whose options they are).
type Handler struct {
	Name string
	Type string // runtime_type
	// Path is the shim's, "" if containerd finds it by its type.
	Path string
}

// TOML returns the handler as lines of a configuration file.
func (h Handler) TOML(version int) string {
	plugin := criV3
	if version < 3 {
		plugin = criV2
	}
	text := fmt.Sprintf("[plugins.%q.containerd.runtimes.%s]\nruntime_type = %q\n", plugin, h.Name, h.Type)
	if h.Path != "" {
		text += fmt.Sprintf("runtime_path = %q\n", h.Path)
	}
	return text
}

// DropIn returns the handler as a file to be imported.
func (h Handler) DropIn(version int) string {
	return fmt.Sprintf("# Written by isolatectl install; isolatectl uninstall removes it.\nversion = %d\n\n%s", version, h.TOML(version))
}

// Configured is a handler in an effective configuration.
func Configured(config map[string]any, name string) (Handler, bool) {
	h := Handler{Name: name}
	for _, plugin := range []string{criV3, criV2} {
		rt := table(table(table(table(config, "plugins"), plugin), "containerd"), "runtimes")
		found := table(rt, name)
		if found == nil {
			continue
		}
		h.Type, _ = found["runtime_type"].(string)
		h.Path, _ = found["runtime_path"].(string)
		return h, true
	}
	return h, false
}

// Others tells whether two effective configurations agree in all but one handler
// and the list of imports.
func Others(before, after map[string]any, name string) bool {
	return reflect.DeepEqual(without(before, name), without(after, name))
}

// without returns a configuration without its imports and a handler. What it
// shares with the original is not changed.
func without(config map[string]any, name string) map[string]any {
	out := maps.Clone(config)
	delete(out, "imports")
	for _, plugin := range []string{criV3, criV2} {
		if table(table(table(table(out, "plugins"), plugin), "containerd"), "runtimes") == nil {
			continue
		}
		at := out
		for _, key := range []string{"plugins", plugin, "containerd", "runtimes"} {
			inner := maps.Clone(table(at, key))
			at[key] = inner
			at = inner
		}
		delete(at, name)
	}
	return out
}

// table is a table in a table, nil if it is not there or not a table.
func table(t map[string]any, key string) map[string]any {
	inner, ok := t[key].(map[string]any)
	if !ok {
		return nil
	}
	return inner
}
