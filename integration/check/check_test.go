// SPDX-License-Identifier: Apache-2.0

// Package check_test runs isolatectl's check on hosts made for it.
package check_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/cmd/isolatectl/check"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/runtime"
)

func TestMain(m *testing.M) {
	lxcfs.MaybeChild()
	check.MaybeChild()
	os.Exit(rig.Main(m))
}

func config(t *testing.T, body string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// find returns the line that begins with what, and fails if it is not there once.
func find(t *testing.T, r check.Report, what string) check.Line {
	t.Helper()
	var found []check.Line
	for _, l := range r.Lines {
		if strings.HasPrefix(l.What, what) {
			found = append(found, l)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d lines of %q in %+v", len(found), what, r.Lines)
	}
	return found[0]
}

func TestHostThatHasEverything(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	node := rig.Containerd(t, rig.Config{Isolate: true})
	server := rig.LxcfsFor(t, peer.Lxcfs5, "")
	r := check.Run(t.Context(), config(t, ""))
	for _, l := range r.Lines {
		// The programs are built with a version, this test is not; and the
		// rig's /etc is an overlay, which no kernel can idmap.
		if l.Result != check.OK && l.What != "shim" && l.What != "volumes from /etc" {
			t.Errorf("%+v", l)
		}
	}
	for what, part := range map[string]string{
		fmt.Sprintf("containerd, process %d", node.Pid()): node.Address,
		"images in " + node.Root:                          "can be idmapped",
		"overlay in " + node.Root:                         "method",
		"OCI runtime":                                     "runc 1.5",
		"lxcfs":                                           server.Dir + " serves",
		"shim":                                            filepath.Join(node.Bin, "containerd-shim-isolate-v1"),
	} {
		if l := find(t, r, what); !strings.Contains(l.Reason, part) {
			t.Errorf("%q is not in %+v", part, l)
		}
	}
	if entries, err := os.ReadDir(node.Root); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return strings.HasPrefix(e.Name(), ".isolate")
	}) {
		t.Errorf("a probe left something behind: %v %v", entries, err)
	}
}

func TestHostThatLacksThings(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	node := rig.Containerd(t, rig.Config{
		Runc: peer.Crun18,
	})
	server := rig.LxcfsFor(t, peer.Lxcfs5, "")
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	r := check.Run(t.Context(), config(t, "[ids]\npool = [\"131072-196607\"]\n"))
	for what, want := range map[string]check.Line{
		"shim":        {Result: check.Failed, Reason: "is not in /opt/containerd/bin:" + node.Bin, Fix: "install containerd-shim-isolate-v1"},
		"lxcfs":       {Result: check.Degraded, Reason: "has died", Fix: "-l --enable-cfs"},
		"OCI runtime": {Result: check.OK, Reason: "crun 1.8.1"},
		"host ids":    {Result: check.Degraded, Reason: "only 1 container", Fix: "ids.pool"},
	} {
		got := find(t, r, what)
		if got.Result != want.Result || !strings.Contains(got.Reason, want.Reason) || !strings.Contains(got.Fix, want.Fix) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if r.ExitCode() != 2 {
		t.Errorf("exit code %d", r.ExitCode())
	}
	required := check.Run(t.Context(), config(t, "[lxcfs]\nmode = \"require\"\n"))
	if l := find(t, required, "lxcfs"); l.Result != check.Failed || !strings.Contains(l.Reason, "refused") {
		t.Errorf("%+v", l)
	}
}

// What the runtimes of the distributions really say.
func TestRuntimes(t *testing.T) {
	for _, c := range []struct {
		name     peer.Name
		kind     runtime.Kind
		program  string
		given    string // ociVersion of containerd 2.4
		prefix   string
		features bool
	}{
		{peer.Runc15, runtime.Runc, "runc", "1.3.0", "1.3.0", true},
		{peer.Runc11, runtime.Runc, "runc", "1.3.0", "1.0.2", true},
		{peer.Crun121, runtime.Crun, "crun", "1.3.0", "1.1.0", true},
		{peer.Crun18, runtime.Crun, "crun", "1.3.0", "1.0.0", false},
	} {
		t.Run(string(c.name), func(t *testing.T) {
			rig.Require(t, rig.Root)
			p, err := peer.Get(t.Context(), c.name)
			if err != nil {
				t.Fatal(err)
			}
			b, err := runtime.Finder{CacheDir: t.TempDir()}.Inspect(t.Context(), p.Program(c.program))
			if err != nil {
				t.Fatal(err)
			}
			t.Log(b)
			if b.Name != c.kind || !strings.HasPrefix(string(c.name), string(b.Name)+"-"+b.Version[:3]) || (b.Features != nil) != c.features {
				t.Errorf("%+v", b)
			}
			if got := b.OCIVersion(c.given); got != c.prefix {
				t.Errorf("ociVersion %q becomes %q, want %q", c.given, got, c.prefix)
			}
		})
	}
}
