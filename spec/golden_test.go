// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
)

var update = flag.Bool("update", false, "write testdata/*/want.json")

// result is what a golden case pins: the spec, what is staged, what is warned.
type result struct {
	Volumes  []Volume        `json:"volumes,omitempty"`
	Warnings []string        `json:"warnings,omitempty"`
	Spec     json.RawMessage `json:"spec"`
}

func TestGolden(t *testing.T) {
	t.Parallel()
	pod := &Sandbox{ID: "pod1", Mode: ModeOwn, Userns: "/proc/77/ns/user", Mapping: idmap.Contiguous(300000, 65536)}
	tests := []struct {
		name    string
		facts   Facts
		version string
		rootfs  string
		nesting *Nesting
		set     bool // NetSysctlsSet
		policy  Policy
	}{
		{name: "own-ctr", rootfs: "/bundle/rootfs", version: "1.0.2"},
		{name: "own-volumes", rootfs: "/bundle/rootfs"},
		{name: "own-foreign-netns", facts: Facts{Joined: map[specs.LinuxNamespaceType]Owner{specs.NetworkNamespace: OwnerHost}}, set: true},
		{name: "own-repairs"},
		{name: "join-pod", facts: Facts{Sandbox: pod, Joined: map[specs.LinuxNamespaceType]Owner{
			specs.NetworkNamespace: OwnerSandbox, specs.IPCNamespace: OwnerSandbox, specs.UTSNamespace: OwnerSandbox,
		}}},
		{name: "join-apart", nesting: nesting(), policy: Policy{Apart: true}, facts: Facts{Sandbox: pod, Joined: map[specs.LinuxNamespaceType]Owner{
			specs.NetworkNamespace: OwnerSandbox, specs.IPCNamespace: OwnerSandbox, specs.UTSNamespace: OwnerSandbox,
		}}},
		{name: "adopt-kubernetes"},
		{name: "nest-ctr", nesting: nesting()},
		{name: "nest-cri-user", nesting: nesting()},
		{name: "nest-privileged-systemd", nesting: func() *Nesting {
			n := nesting()
			n.Systemd, n.Units = true, "/stage/units"
			n.Limits = map[string]uint64{"RLIMIT_NOFILE": 65536, "RLIMIT_NPROC": 1000}
			n.Stores = map[string]string{"/var/lib/docker": "/stage/docker", "/var/lib/containerd": "/stage/containerd"}
			return n
		}()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			doc := parseFile(t, filepath.Join("testdata", tt.name, "in.json"))
			plan := Plan{Rootfs: tt.rootfs, OCIVersion: tt.version, Mapping: idmap.Contiguous(1879048192, 65536), Nesting: tt.nesting, NetSysctlsSet: tt.set}
			var got result
			got.Volumes, got.Warnings = apply(t, doc, tt.facts, tt.policy, &plan)
			data, err := doc.JSON()
			if err != nil {
				t.Fatal(err)
			}
			got.Spec = data
			compare(t, filepath.Join("testdata", tt.name, "want.json"), got)

			// Applied to its own result, the pipeline changes nothing.
			if plan.Mode == ModeAdopt || plan.Mode == ModeJoin {
				return
			}
			again, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Apply(again.Spec, &plan); err != nil {
				t.Fatal(err)
			}
			twice, err := again.JSON()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(canonical(t, data), canonical(t, twice)) {
				t.Errorf("second Apply changed the spec:\n%s\n%s", data, twice)
			}
		})
	}
}

func nesting() *Nesting {
	return &Nesting{
		Hidden:  "/stage/hidden",
		Devices: map[string]string{"/dev/fuse": "/stage/fuse", "/dev/net/tun": "/stage/tun"},
	}
}

// apply goes through the package as the shim does.
func apply(t *testing.T, doc *Document, f Facts, policy Policy, plan *Plan) ([]Volume, []string) {
	t.Helper()
	d, err := Decide(doc.Spec, f, policy)
	if err != nil {
		t.Fatal(err)
	}
	plan.Decision = d
	plan.Nodes = Nodes(doc.Spec)
	switch d.Mode {
	case ModeJoin:
		if plan.Mapping = f.Sandbox.Mapping; !d.Apart {
			plan.Userns = f.Sandbox.Userns
		}
	case ModeAdopt:
		if plan.Mapping, err = idmap.FromSpec(doc.Spec.Linux.UIDMappings, doc.Spec.Linux.GIDMappings); err != nil {
			t.Fatal(err)
		}
	case ModeOwn:
	}
	volumes, err := Volumes(doc.Spec, d, plan.Mapping, "/bundle")
	if err != nil {
		t.Fatal(err)
	}
	plan.Staged = map[int]StagedMount{}
	for i, v := range volumes {
		staged := StagedMount{Source: filepath.Join("/stage", string(rune('0'+i))), Kernel: v.Kernel}
		for _, f := range v.Flags {
			if top := strings.TrimPrefix(f, "r"); cloneFlags[top] {
				f = top
			}
			staged.Flags = append(staged.Flags, f)
		}
		plan.Staged[v.Index] = staged
	}
	warnings, err := Apply(doc.Spec, plan)
	if err != nil {
		t.Fatal(err)
	}
	return volumes, append(d.Warnings, warnings...)
}

func parseFile(t *testing.T, path string) *Document {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func compare(t *testing.T, path string, got result) {
	t.Helper()
	got.Spec = canonical(t, got.Spec)
	data, err := json.MarshalIndent(got, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	data = append(data, '\n')
	if *update {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(anyArchitecture(t, data), anyArchitecture(t, want)) {
		t.Errorf("differs from %s (accept with -update):\n%s", path, data)
	}
}

// anyArchitecture leaves the seccomp profile out where it is not that of the golden
// files: containerd's names system calls of the processor it runs on, and what is
// ours of it has tests of its own.
func anyArchitecture(t *testing.T, data []byte) []byte {
	t.Helper()
	if runtime.GOARCH == "amd64" {
		return data
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	if spec, ok := all["spec"].(map[string]any); ok {
		if linux, ok := spec["linux"].(map[string]any); ok {
			delete(linux, "seccomp")
		}
	}
	out, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// canonical sorts the keys: merging leaves their order open.
func canonical(t *testing.T, data []byte) []byte {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
