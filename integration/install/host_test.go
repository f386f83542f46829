// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// binDir is where the programs go: not on containerd's PATH, as on hosts whose
// /usr is read-only.
const binDir = "/etc/opt/isolate/bin"

// host is a containerd that knows nothing of isolate, and the programs.
type host struct {
	*rig.Node
	programs string // the directory that holds both
}

const dropIns = `imports = ["/etc/containerd/conf.d/*.toml"]`

// imports replaces the imports of a main configuration file.
func imports(line string) func(string) string {
	return func(main string) string {
		lines := strings.SplitAfter(main, "\n")
		i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "imports") })
		lines[i] = line
		return strings.Join(lines, "")
	}
}

func hostOf(t *testing.T, containerd peer.Name, main func(string) string) host {
	t.Helper()
	rig.Require(t, rig.Root)
	return hostWith(t, rig.Config{Containerd: containerd, CRI: true, Main: main})
}

func hostWith(t *testing.T, config rig.Config) host {
	t.Helper()
	h := host{Node: rig.Containerd(t, config)}
	built, err := rig.Built(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.programs = filepath.Dir(built["isolatectl"])
	return h
}

// ctl runs isolatectl for the containerd of the host.
func (h host) ctl(t *testing.T, command string, args ...string) rig.Result {
	t.Helper()
	return rig.Exec(t.Context(), slices.Concat([]string{filepath.Join(h.programs, "isolatectl"), command, "--address", h.Address}, args)...)
}

func (h host) install(t *testing.T, args ...string) rig.Result {
	t.Helper()
	return h.ctl(t, "install", append([]string{"--bin-dir", binDir}, args...)...)
}

// supervised starts containerd again whenever it ends.
func (h host) supervised(t *testing.T) {
	t.Helper()
	stop := h.Supervise(context.Background())
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// refused demands that a command has failed, and has said all that.
func refused(t *testing.T, r rig.Result, parts ...string) {
	t.Helper()
	if r.Code != 3 {
		t.Errorf("%v: exit status %d, want 3\n%s%s", r.Argv, r.Code, r.Stdout, r.Stderr)
	}
	for _, part := range parts {
		if !strings.Contains(r.Stderr, part) {
			t.Errorf("%v says %q, without %q", r.Argv, r.Stderr, part)
		}
	}
}

// said demands that a command has succeeded and printed all that.
func said(t *testing.T, r rig.Result, parts ...string) {
	t.Helper()
	out := r.Must(t)
	for _, part := range parts {
		if !strings.Contains(out, part) {
			t.Errorf("%v says %q, without %q", r.Argv, out, part)
		}
	}
}

// files are the content of all files that installing could touch.
func (h host) files(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, top := range []string{"/etc/containerd", "/etc/opt", "/var/lib/isolate", h.File} {
		err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				found[path] = fmt.Sprint(err == nil)
				return nil //nolint:nilerr // what is not there is not there
			}
			text, err := os.ReadFile(path)
			info, err2 := e.Info()
			if err != nil || err2 != nil {
				return fmt.Errorf("%w, %w", err, err2)
			}
			found[path] = fmt.Sprintf("%s %d %d %s", info.Mode(), len(text), info.Sys(), text)
			if info.Size() < 1<<20 {
				found[path] = fmt.Sprintf("%s %s", info.Mode(), text)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// same demands that files are as they were.
func same(t *testing.T, before, after map[string]string) {
	t.Helper()
	for path := range after {
		if before[path] != after[path] {
			t.Errorf("%s was %.300q, is %.300q", path, before[path], after[path])
		}
	}
	for path := range before {
		if _, ok := after[path]; !ok {
			t.Errorf("%s is gone", path)
		}
	}
}

// handler asks containerd, by the program that administrators use, whether it
// knows isolate, with user namespaces.
func (h host) handler(t *testing.T) (known, userns bool) {
	t.Helper()
	tools, err := peer.Get(t.Context(), peer.CRITools)
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		RuntimeHandlers []struct {
			Name     string
			Features struct {
				UserNamespaces bool `json:"user_namespaces"`
			}
		}
	}
	text := rig.Exec(t.Context(), tools.Program("crictl"), "--runtime-endpoint", "unix://"+h.Address, "info").Must(t)
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		t.Fatal(err)
	}
	for _, r := range info.RuntimeHandlers {
		if r.Name == "isolate" {
			return true, r.Features.UserNamespaces
		}
	}
	return false, false
}

func (h host) demo(t *testing.T) string {
	t.Helper()
	return h.MustImport(t, image.Demo)
}
