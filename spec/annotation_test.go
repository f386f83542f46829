// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestAnnotationsThatRuntimesObey: a client that may choose nothing but annotations
// had files of the host written and the seccomp profile replaced.
func TestAnnotationsThatRuntimesObey(t *testing.T) {
	t.Parallel()
	given := []string{
		"org.opencontainers.image.title", "io.kubernetes.cri.container-type", "io.containerd.isolate.size", "run.oc", "org.criu", // harmless
		"run.oci.hooks.stderr", "run.oci.of.tomorrow", "org.criu.config", "org.systemd.property.ExecStopPost", "io.containerd.runc.v2.group",
		"krun.cpus", "module.wasm.image/variant", "com.example.new", "com.example.family.x",
	}
	for _, tt := range []struct {
		name           string
		allow, obeyed  []string
		want, removed  int
		contains, gone string
	}{
		{name: "by default", want: 7, removed: 7, gone: "run.oci.hooks.stderr"},
		{name: "what the runtime says", obeyed: []string{"com.example.new", "com.example.family.", "io.kubernetes.cri.container-type"}, want: 5, removed: 9, gone: "com.example.family.x"},
		{name: "one allowed", allow: []string{"org.criu.config", "size"}, want: 8, removed: 6, contains: "org.criu.config"},
		{name: "a family allowed", allow: []string{"org.systemd.property."}, want: 8, removed: 6, contains: "org.systemd.property.ExecStopPost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &specs.Spec{Annotations: map[string]string{}}
			for _, name := range given {
				s.Annotations[name] = "/run/x"
			}
			p := &Plan{}
			p.Annotations.Allowed, p.Annotations.Obeyed = tt.allow, tt.obeyed
			warnings, err := annotations(s, p)
			if err != nil {
				t.Fatal(err)
			}
			left := slices.Sorted(maps.Keys(s.Annotations))
			if len(left) != tt.want || len(warnings) != tt.removed || tt.contains != "" && !slices.Contains(left, tt.contains) || slices.Contains(left, tt.gone) {
				t.Errorf("left are %q; warnings are %q", left, warnings)
			}
			for _, w := range warnings {
				if !strings.Contains(w, "annotations.allow") {
					t.Errorf("no cure in %q", w)
				}
			}
		})
	}
}

func TestObeyedTable(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, o := range ObeyedAnnotations() {
		if seen[o.Name] || o.By == "" || o.Does == "" {
			t.Errorf("row %+v", o)
		}
		seen[o.Name] = true
	}
}
