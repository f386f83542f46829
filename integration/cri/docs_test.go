// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/manual"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// documented returns the blocks of one language in docs/containerd.md.
func documented(t *testing.T, language string) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/containerd.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range manual.Parse(string(text)) {
		if b.Language == language {
			blocks = append(blocks, b.Text)
		}
	}
	return blocks
}

// block returns the one block with some text in it.
func block(t *testing.T, language, part string) string {
	t.Helper()
	var found []string
	for _, b := range documented(t, language) {
		if strings.Contains(b, part) {
			found = append(found, b)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d blocks of %s with %q in the documentation", len(found), language, part)
	}
	return found[0]
}

// TestDocumentation does what docs/containerd.md says, in either form of the
// stanza: its configuration, its files and its commands.
func TestDocumentation(t *testing.T) {
	hosts, registry := serveRegistry(t)
	for name, stanza := range map[string]string{
		"by name": block(t, "toml", `runtime_type = "`+shimName+`"`),
		"as runc": block(t, "toml", `runtime_path`),
	} {
		t.Run(name, func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE)
			rig.LxcfsFor(t, peer.Lxcfs6, "")
			programs, err := rig.Built(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			containerd, err := peer.Get(t.Context(), peer.Containerd24)
			if err != nil {
				t.Fatal(err)
			}
			runtime := record(t, peer.Runc15)
			place := strings.NewReplacer(
				"/usr/local/bin/containerd-shim-isolate-v1", programs["containerd-shim-isolate-v1"], "/usr/local/sbin/runc", runtime.path,
			)
			settings := block(t, "toml", "annotations.allow")
			if name == "by name" {
				settings += place.Replace(block(t, "toml", "[runtime]"))
			}
			rig.Configure(t, settings)
			// Keys of the stanza's first table.
			head, rest, _ := strings.Cut(place.Replace(stanza), "runtime_type")
			n := startNode(t, rig.Config{TOML: registry + head + block(t, "toml", "pod_annotations") + "runtime_type" + rest})

			dir := t.TempDir()
			t.Cleanup(func() {
				n.removeAll(t)
				if err := errors.Join(os.RemoveAll("/tmp/try-logs"), os.Remove("/etc/crictl.yaml")); err != nil {
					t.Error(err)
				}
			})
			client := strings.Replace(block(t, "yaml", "endpoint"), "/run/containerd/containerd.sock", n.Address, 1)
			if err := os.WriteFile("/etc/crictl.yaml", []byte(client), 0o644); err != nil {
				t.Fatal(err)
			}
			files := documented(t, "json")
			for i, file := range []string{"pod.json", "container.json"} {
				// For the driver that the settings name.
				text := strings.Replace(files[i], `"linux": {"security_context"`, `"linux": {"cgroup_parent": "test.slice", "security_context"`, 1)
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			script := "set -e; cd " + dir + "; export PATH=" + filepath.Dir(n.crictl) + ":$PATH\n" +
				block(t, "sh", "crictl runp")
			got := strings.Join(strings.Fields(rig.Exec(t.Context(), "sh", "-c", script).Must(t)), " ")
			for _, part := range []string{" 0 200000 65536 ", " MemTotal: 131072 kB "} {
				if !strings.Contains(got, part) {
					t.Errorf("%q is not in %q", part, got)
				}
			}
			if got := runtime.take(t); !strings.HasPrefix(got, "create+systemd start+systemd create+systemd") {
				t.Errorf("the runtime was asked to %q", got)
			}

			for _, commands := range []struct{ path, part, last string }{
				{"docs/containerd.md", "ctr run", "65536"},
				{"README.md", "ctr run", "root"},
				{"docs/configuration.md", "--annotation", `"size"]`},
			} {
				script := "set -e; sudo() { \"$@\"; }; ctr() { " + containerd.Program("ctr") + " --address " + n.Address + " \"$@\"; }\n" +
					strings.NewReplacer(
						"images pull", "images pull --hosts-dir "+hosts, // ctr does not know where containerd looks
						"--rm -t", "--rm", " bash", " bash <<<'whoami; exit'", // without a terminal
					).Replace(manual.Commands(t, commands.path, commands.part))
				if got := strings.Fields(rig.Exec(t.Context(), "bash", "-c", script).Must(t)); len(got) == 0 || got[len(got)-1] != commands.last {
					t.Errorf("the commands of %s print %q", commands.path, got)
				}
			}
		})
	}
}
