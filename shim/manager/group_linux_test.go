// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/isolate-shim/isolate/spec"
)

// TestGroupOfAnother: an annotation put a container into the shim of another one.
func TestGroupOfAnother(t *testing.T) {
	t.Parallel()
	const rest = `,"process":{"user":{"uid":0,"gid":0},"cwd":"/"},"root":{"path":"r"}}`
	for _, tt := range []struct {
		name, namespace, config string
		want                    map[string]string
		mode                    os.FileMode
	}{
		{"Docker's client", "moby", `{"annotations":{"io.kubernetes.cri.sandbox-id":"victim","a":"b"}` + rest, map[string]string{"a": "b"}, 0o644},
		{"a group", "default", `{"annotations":{"io.containerd.runc.v2.group":"victim"}` + rest, nil, 0o640},
		{
			"a pod", "k8s.io", `{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.kubernetes.cri.container-type":"container"}` + rest,
			map[string]string{"io.kubernetes.cri.sandbox-id": "pod", "io.kubernetes.cri.container-type": "container"},
			0o644,
		},
		{"a group, written in another way", "default", `{"annotations":{"i\u006f.containerd.runc.v2.group":"victim"}` + rest, nil, 0o640},
		{"nothing", "moby", `{"future":1` + rest, nil, 0o600},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "config.json")
			if err := os.WriteFile(path, []byte(tt.config), tt.mode); err != nil {
				t.Fatal(err)
			}
			if err := ungroup(dir, tt.namespace, "self"); err != nil {
				t.Fatal(err)
			}
			var left struct{ Annotations map[string]string }
			data, err := os.ReadFile(path)
			if err := errors.Join(err, json.Unmarshal(data, &left)); err != nil || !maps.Equal(left.Annotations, tt.want) {
				t.Errorf("annotations are %q, %v", left.Annotations, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != tt.mode {
				t.Errorf("%v, %v", info, err)
			}
		})
	}
	// What upstream reads, and isolate would read otherwise, is refused.
	dir := t.TempDir()
	twice := `{"annotations":{"io.containerd.runc.v2.group":"victim"},"Annotations":{}` + rest
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(twice), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ungroup(dir, "moby", "self"); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("two spellings: %v", err)
	}
}

func TestAnnotationsOf(t *testing.T) {
	t.Parallel()
	pod := map[string]string{spec.SandboxAnnotation: "pod"}
	for config, want := range map[string]map[string]string{
		`{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}} `:          pod,
		`{"annotations":{"io\u002ekubernetes.cri.sandbox-\u0069d":"pod"}}`: pod,
		`{"process":{"args":["io.kubernetes.cri.sandbox-id"]}}`:            nil,
		`{"annotations":{"a":"b"}}`:                                        nil,
		`{"annotations":{"io.kubernetes.cri.sandbox-id":1}}`:               nil,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := annotationsOf(dir); !maps.Equal(got, want) {
			t.Errorf("%s: %q", config, got)
		}
	}
	if got := annotationsOf(t.TempDir()); got != nil {
		t.Errorf("no spec: %q", got)
	}
}
