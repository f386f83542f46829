// SPDX-License-Identifier: Apache-2.0

// Package deploy holds what puts isolate onto hosts and clusters, and tests of what
// packages are made of.
package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"text/template"
)

// chart makes the Helm chart and returns its directory.
func chart(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "package/chart.sh", dir, "0.1.0").CombinedOutput(); err != nil {
		t.Fatalf("chart.sh: %v: %s", err, out)
	}
	return filepath.Join(dir, "isolate")
}

// render does what Helm does with one template, which uses no function of Helm's own.
func render(t *testing.T, dir, name string, set map[string]any) string {
	t.Helper()
	values := map[string]any{}
	text, err := os.ReadFile(filepath.Join(dir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^(\w+): (.*)$`).FindAllStringSubmatch(string(text), -1) {
		values[m[1]] = strings.Trim(m[2], `"`)
		if b, err := strconv.ParseBool(m[2]); err == nil {
			values[m[1]] = b
		}
	}
	for key, value := range set {
		if _, ok := values[key]; !ok {
			t.Fatalf("values.yaml has no %s", key)
		}
		values[key] = value
	}
	parsed, err := template.New(name).Option("missingkey=error").ParseFiles(filepath.Join(dir, "templates", name))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := parsed.Execute(&b, map[string]any{"Values": values}); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(b.String())
}

// TestChartIsWhatKustomizeApplies: who changes an object of one changes it in both.
func TestChartIsWhatKustomizeApplies(t *testing.T) {
	t.Parallel()
	dir := chart(t)
	image := regexp.MustCompile(`(?m)image: isolate(-lxcfs)?$`)
	kustomized := 0
	for _, kustomization := range []string{"install", "lxcfs"} {
		list, err := os.ReadFile(filepath.Join(kustomization, "kustomization.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^  - (\w+\.yaml)$`).FindAllStringSubmatch(string(list), -1) {
			kustomized++
			object, err := os.ReadFile(filepath.Join(kustomization, m[1]))
			if err != nil {
				t.Fatal(err)
			}
			name := m[1]
			if kustomization == "lxcfs" {
				name = "lxcfs.yaml"
			}
			want := image.ReplaceAllString(strings.TrimSpace(string(object)), "$0:latest")
			if got := render(t, dir, name, nil); got != want {
				t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
			}
		}
	}
	if templates, err := filepath.Glob(filepath.Join(dir, "templates/*")); err != nil || len(templates) != kustomized {
		t.Errorf("there are %d templates, and kustomize takes %d files (%v)", len(templates), kustomized, err)
	}
}

// TestChartValues: each has its effect.
func TestChartValues(t *testing.T) {
	t.Parallel()
	dir := chart(t)
	for _, test := range []struct {
		name  string
		set   map[string]any
		lines string
	}{
		{"installer.yaml", map[string]any{"image": "example.com/isolate:v0.1.0"}, "image: example.com/isolate:v0.1.0"},
		{"lxcfs.yaml", map[string]any{"lxcfsImage": "example.com/lxcfs:v0.1.0"}, "image: example.com/lxcfs:v0.1.0"},
		{
			"installer.yaml",
			map[string]any{"restart": "signal", "address": "/a", "binDir": "/b"},
			`args: ["install", "--root=/host", "--restart=signal", "--node=$(NODE_NAME)", "--address=/a", "--bin-dir=/b"]`,
		},
		{
			"installer.yaml",
			map[string]any{"action": "uninstall", "address": "/a", "binDir": "/b"},
			`args: ["uninstall", "--root=/host", "--restart=systemd", "--node=$(NODE_NAME)", "--address=/a"]`,
		},
		// As in uninstall/kustomization.yaml.
		{"installer.yaml", map[string]any{"action": "uninstall"}, "- name: uninstall\n- name: uninstalled\nmaxUnavailable: 100%"},
	} {
		got := render(t, dir, test.name, test.set)
		for line := range strings.SplitSeq(test.lines, "\n") {
			if !regexp.MustCompile(`(?m)^ *` + regexp.QuoteMeta(line) + `$`).MatchString(got) {
				t.Errorf("with %v there is no %q in\n%s", test.set, line, got)
			}
		}
	}
	for name, value := range map[string]string{"policy.yaml": "policy", "lxcfs.yaml": "lxcfs"} {
		if got := render(t, dir, name, map[string]any{value: false}); got != "" {
			t.Errorf("without %s it has\n%s", value, got)
		}
	}
}
