// SPDX-License-Identifier: Apache-2.0

package install

import (
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
)

func factsOf(path, main string) facts {
	c := containerdFacts{
		Containerd: host.Containerd{
			Process: host.Process{Exe: "/usr/bin/containerd", Path: path}, File: "/etc/containerd/config.toml", Effective: host.Config{}, Address: host.DefaultAddress,
		},
		Format: 3,
	}
	if main != "" {
		file, err := host.ParseFile(c.File, main)
		if err != nil {
			panic(err)
		}
		c.Main = &file
	}
	return facts{Programs: map[string]string{host.ShimName: "s1", ctlName: "c1"}, Sums: map[string]string{}, Containerd: &c}
}

const imports = "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n"

func TestDecide(t *testing.T) {
	t.Parallel()
	request := Request{BinDir: BinDir, Handler: true, Address: host.DefaultAddress}
	for _, test := range []struct {
		name    string
		facts   facts
		changes []string // path, and what it has to hold
	}{
		{"found on PATH", factsOf("/sbin:/usr/local/bin", imports), []string{"/etc/containerd/conf.d/isolate.toml", "version = 3"}},
		{"not found on PATH", factsOf("/sbin", imports), []string{"/etc/containerd/conf.d/isolate.toml", `runtime_path = "/usr/local/bin/containerd-shim-isolate-v1"`}},
		{"version 2", factsOf("/usr/local/bin", "version = 2\nimports = ['x/*.toml']"), []string{"/etc/containerd/x/isolate.toml", "io.containerd.grpc.v1.cri"}},
		{"no import", factsOf("/usr/local/bin", "version = 3\n"), []string{
			"/etc/containerd/config.toml", "by isolatectl", "/etc/containerd/conf.d/isolate.toml", "isolate.v1",
		}},
		{"no file", factsOf("/usr/local/bin", ""), []string{
			"/etc/containerd/config.toml", "version = 3\nimports", "/etc/containerd/conf.d/isolate.toml", "isolate.v1",
		}},
		{"no containerd", facts{}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p, err := decide(test.facts, request)
			if err != nil {
				t.Fatal(err)
			}
			if p.Changes[0].Path != BinDir+"/"+host.ShimName || p.Changes[1].Path != BinDir+"/"+ctlName || len(p.Changes) != 2+len(test.changes)/2 {
				t.Fatalf("%+v", p.Changes)
			}
			for i, c := range p.Changes[2:] {
				if c.Path != test.changes[2*i] || !strings.Contains(c.Text, test.changes[2*i+1]) || !c.configuration() {
					t.Errorf("got %+v, want %q", c, test.changes[2*i:])
				}
			}
			// What the receipt keeps is enough to undo it, and a second plan is empty.
			r := receipt{}.with(p).settled(p)
			for _, c := range p.Changes {
				if c.Edit == nil && !slices.ContainsFunc(r.Files, func(f file) bool { return f.Path == c.Path && slices.Equal(f.Sums, []string{c.Sum}) }) {
					t.Errorf("%s is not in %+v", c.Path, r)
				}
			}
			if again := r.with(p).settled(p); len(again.Files) != len(r.Files) {
				t.Errorf("again: %+v", again)
			}
		})
	}
}

func TestDecideLeavesHandlersOfOthersAlone(t *testing.T) {
	t.Parallel()
	handler := func(runtime, path string) host.Config {
		return host.Config{"version": int64(3), "plugins": map[string]any{"io.containerd.cri.v1.runtime": map[string]any{
			"containerd": map[string]any{"runtimes": map[string]any{"isolate": map[string]any{"runtime_type": runtime, "runtime_path": path}}},
		}}}
	}
	f := factsOf("/usr/local/bin", imports)
	f.Containerd.Effective = handler("io.containerd.runc.v2", "/usr/local/bin/"+host.ShimName)
	p, err := decide(f, Request{BinDir: BinDir, Handler: true})
	if err != nil || p.configures() || p.Expected.Type != "io.containerd.runc.v2" {
		t.Errorf("%+v, %v", p, err)
	}
	f.Containerd.Effective = handler("io.containerd.runsc.v1", "")
	if _, err := decide(f, Request{BinDir: BinDir, Handler: true}); err == nil || !strings.Contains(err.Error(), `"io.containerd.runsc.v1"`) {
		t.Errorf("got %v", err)
	}
	// Our own is replaced.
	f.Containerd.Effective = handler(host.RuntimeType, "/old/place")
	f.Sums["/etc/containerd/conf.d/isolate.toml"] = "old"
	p, err = decide(f, Request{BinDir: BinDir, Handler: true})
	if err != nil || !p.configures() || !p.changesConfiguration() || p.Expected.Path != "" {
		t.Errorf("%+v, %v", p, err)
	}
}

// A receipt that was written before a crash allows for the old and the new file.
func TestReceiptKeepsWhatAnEarlierInstallationWrote(t *testing.T) {
	t.Parallel()
	planOf := func(sum string) plan { return plan{Changes: []change{{Path: "/b/x", Kind: program, Sum: sum}}} }
	first := receipt{}.with(planOf("one")).settled(planOf("one"))
	interrupted := first.with(planOf("two"))
	if got := interrupted.Files[0].Sums; !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("got %q", got)
	}
	if got := first.Files[0].Sums; !slices.Equal(got, []string{"one"}) {
		t.Errorf("the earlier receipt has become %q", got)
	}
	elsewhere := interrupted.with(plan{Changes: []change{{Path: "/c/x", Kind: program, Sum: "two"}}})
	if len(elsewhere.Files) != 2 {
		t.Errorf("forgot %+v", elsewhere)
	}
}
