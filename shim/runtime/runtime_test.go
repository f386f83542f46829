// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/internal/testprogram"
)

// script makes an executable file.
func script(t *testing.T, dir, name, body string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := testprogram.Write(path, "#!/bin/sh\n"+body+"\n"); err != nil {
		t.Fatal(err)
	}
	return path
}

// recorded is a stand-in that prints what a real runtime printed.
func recorded(t *testing.T, dir, name, real string) string {
	t.Helper()
	data, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	return script(t, dir, name, `echo "$1" >> "$0.calls"
case "$1" in
--version) cat '`+data+"/"+real+`.version' ;;
features) cat '`+data+"/"+real+`.features' 2>/dev/null || { echo unknown command features >&2; exit 1; } ;;
esac`)
}

func calls(t *testing.T, path string) int {
	t.Helper()
	data, err := os.ReadFile(path + ".calls")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}

func TestLocate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	runc := script(t, dir, "both/runc", "")
	crun := script(t, dir, "both/crun", "")
	onlyCrun := script(t, dir, "crun/crun", "")
	if err := os.WriteFile(filepath.Join(dir, "crun/runc"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	both, second := filepath.Dir(runc), filepath.Dir(onlyCrun)
	empty := t.TempDir()

	for _, c := range []struct {
		name, requested, configured, path string
		want                              string
		wantErr                           []string
	}{
		{"nothing said", "", "", both, runc, nil},
		{"not executable is not there", "", "", second, onlyCrun, nil},
		{"first directory wins", "", "crun", second + ":" + both, onlyCrun, nil},
		{"runc further on wins over crun", "", "", second + ":" + both, runc, nil},
		{"configured name", "", "crun", both, crun, nil},
		{"configured path", "", onlyCrun, both, onlyCrun, nil},
		{"request wins", runc, onlyCrun, empty, runc, nil},
		{"requested name", "crun", runc, second, onlyCrun, nil},
		{"none installed", "", "", empty, "", []string{"neither runc nor crun is in " + empty, "install runc", "runtime.binary"}},
		{"configured name absent", "", "youki", both, "", []string{`"youki"`, "runtime.binary", both}},
		{"requested path absent", "/nowhere/runc", "", both, "", []string{`"/nowhere/runc"`, "BinaryName", "no such file"}},
		{"request never falls back", "youki", "runc", both, "", []string{`"youki"`, "BinaryName"}},
		{"relative path", "bin/runc", "", both, "", []string{"neither an absolute path nor a plain name"}},
		{"directory", dir, "", both, "", []string{"not a regular file"}},
		{"not executable", filepath.Join(dir, "crun/runc"), "", both, "", []string{"not executable"}},
		{"relative directories are not searched", "", "", ".:bin", "", []string{"install runc"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := locate(c.requested, c.configured, c.path)
			if got != c.want {
				t.Errorf("got %q, want %q (%v)", got, c.want, err)
			}
			if (err != nil) != (c.wantErr != nil) {
				t.Fatal(err)
			}
			if err != nil && !errors.Is(err, ErrNotFound) {
				t.Errorf("not ErrNotFound: %v", err)
			}
			for _, part := range c.wantErr {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in: %v", part, err)
				}
			}
		})
	}
}

func TestFindAsksTheRuntimeItFound(t *testing.T) {
	t.Parallel()
	dir, cache := t.TempDir(), t.TempDir()
	// crun installed under the name of runc, as some distributions do.
	path := recorded(t, dir, "runc", "crun-1.8.1")
	b, err := Finder{cache}.Inspect(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	want := Binary{Path: path, Name: Crun, Version: "1.8.1", SpecVersion: "1.0.0"}
	if b != want {
		t.Errorf("got %+v, want %+v", b, want)
	}
	if s := b.String(); s != "crun 1.8.1 ("+path+")" {
		t.Error(s)
	}
}

func TestOCIVersion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ runtime, spec, want string }{
		{"1.0.0", "1.3.0", "1.0.0"},     // crun 1.8.1
		{"1.0.0", "1.0.2", "1.0.2"},     // same minor version: untouched
		{"1.0.2-dev", "1.3.0", "1.0.2"}, // runc 1.1.5
		{"1.1.0+dev", "1.3.0", "1.1.0"}, // crun 1.21
		{"1.3.0", "1.3.0", "1.3.0"},     // runc 1.5
		{"1.3.0", "1.0.2-dev", "1.0.2-dev"},
		{"1.3.0", "2.0.0", "1.3.0"},
		{"", "1.3.0", "1.3.0"},
		{"1.0.0", "", ""},
		{"what", "1.3.0", "1.3.0"},
	} {
		if got := (Binary{SpecVersion: c.runtime}).OCIVersion(c.spec); got != c.want {
			t.Errorf("runtime that knows %q given %q: %q, want %q", c.runtime, c.spec, got, c.want)
		}
	}
}

// The answers of the runtimes of Debian 12, Debian 13 and of runc's newest
// release, as they printed them.
func TestInspectRealAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		real, version, spec string
		kind                Kind
		features, rro       bool
	}{
		{"runc-1.1.5", "1.1.5+ds1", "1.0.2-dev", Runc, true, true},
		{"runc-1.5.0", "1.5.0", "1.3.0", Runc, true, true},
		{"crun-1.8.1", "1.8.1", "1.0.0", Crun, false, false},
		{"crun-1.21", "1.21", "1.1.0+dev", Crun, true, true},
	} {
		t.Run(c.real, func(t *testing.T) {
			t.Parallel()
			b, err := Finder{t.TempDir()}.Inspect(t.Context(), recorded(t, t.TempDir(), "rt", c.real))
			if err != nil {
				t.Fatal(err)
			}
			if b.Name != c.kind || b.Version != c.version || b.SpecVersion != c.spec || (b.Features != nil) != c.features {
				t.Errorf("%+v", b)
			}
			before, err := json.Marshal(b)
			if err != nil {
				t.Fatal(err)
			}
			f := InfoFeatures(b)
			for _, ns := range []string{"user", "cgroup", "pid"} {
				if !slices.Contains(f.Linux.Namespaces, ns) {
					t.Errorf("namespace %q is missing", ns)
				}
			}
			if e := f.Linux.MountExtensions; e == nil || e.IDMap == nil || e.IDMap.Enabled == nil || !*e.IDMap.Enabled {
				t.Error("idmapped mounts are not announced")
			}
			if got := slices.Contains(f.MountOptions, "rro"); got != c.rro {
				t.Errorf("rro announced: %v, want %v", got, c.rro)
			}
			if !slices.Contains(f.MountOptions, "rbind") || f.OCIVersionMax != c.spec || f.OCIVersionMin != "1.0.0" {
				t.Errorf("%+v", f)
			}
			if after, err := json.Marshal(b); err != nil || string(after) != string(before) {
				t.Error("the binary's own features changed")
			}
		})
	}
}

func TestInspectOnceUntilTheFileChanges(t *testing.T) {
	t.Parallel()
	dir, cache := t.TempDir(), filepath.Join(t.TempDir(), "isolate/.runtime")
	path := recorded(t, dir, "runc", "runc-1.5.0")
	first, err := Finder{cache}.Inspect(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Finder{cache}.Inspect(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if n := calls(t, path); n != 2 {
		t.Errorf("the runtime ran %d times, want 2", n)
	}
	if !reflect.DeepEqual(first, again) {
		t.Errorf("cached %+v\nfresh  %+v", again, first)
	}

	// An upgrade: another file under the same path.
	if err := os.Rename(recorded(t, dir, "new", "runc-1.1.5"), path); err != nil {
		t.Fatal(err)
	}
	upgraded, err := Finder{cache}.Inspect(t.Context(), path)
	if err != nil || upgraded.Version != "1.1.5+ds1" {
		t.Errorf("after the upgrade: %+v %v", upgraded, err)
	}
	entries, err := os.ReadDir(cache)
	if err != nil || len(entries) != 1 {
		t.Errorf("cache holds %v, want one file (%v)", entries, err)
	}

	// Rubbish in the cache is as good as nothing.
	file := cacheFile(cache, path)
	for _, rubbish := range []string{"", "{", `{"of":{},"binary":{"path":"/bin/evil"}}`, "\x00"} {
		if err := os.WriteFile(file, []byte(rubbish), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := Finder{cache}.Inspect(t.Context(), path)
		if err != nil || b.Version != "1.1.5+ds1" {
			t.Errorf("cache %q: %+v %v", rubbish, b, err)
		}
		id, err := identify(path)
		if err != nil {
			t.Fatal(err)
		}
		{
			if _, ok := read(cache, id); !ok {
				t.Errorf("cache %q was not rewritten", rubbish)
			}
		}
	}
}

func TestInspectWithoutACacheDirectory(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := Finder{filepath.Join(file, "sub")}.Inspect(t.Context(), recorded(t, t.TempDir(), "runc", "runc-1.5.0"))
	if err != nil || b.Version != "1.5.0" {
		t.Errorf("%+v %v", b, err)
	}
}

func TestInspectOddRuntimes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body string
		want       Binary
		wantErr    string
	}{
		{"fails", "echo out of order >&2; exit 3", Binary{}, "exit status 3: out of order"},
		{"says nothing", "exit 0", Binary{}, "no output"},
		{"another name", "[ $1 = --version ] && echo youki version: 0.5.1 && exit 0\nexit 1", Binary{Name: Other, Version: "0.5.1"}, ""},
		{"features are help", "echo runc version 1.0.3; echo spec: 1.0.2-dev", Binary{Name: Runc, Version: "1.0.3", SpecVersion: "1.0.2-dev"}, ""},
		{"floods", "[ $1 = --version ] && { echo crun version 1.0; yes | head -c 9000000; } && exit 0\nexit 1", Binary{Name: Crun, Version: "1.0"}, ""},
		{"leaves a grandchild with the pipe", "echo crun version 1.0\nsleep 3 &", Binary{Name: Crun, Version: "1.0"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := script(t, t.TempDir(), "rt", c.body)
			got, err := Finder{t.TempDir()}.Inspect(t.Context(), path)
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) || !strings.Contains(err.Error(), path) {
					t.Errorf("%v", err)
				}
				return
			}
			c.want.Path = path
			if err != nil || got != c.want {
				t.Errorf("got %+v, want %+v (%v)", got, c.want, err)
			}
		})
	}
}

func FuzzParseVersion(f *testing.F) {
	files, err := filepath.Glob("testdata/*.version")
	if err != nil || len(files) == 0 {
		f.Fatal("no recorded versions", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Fuzz(func(t *testing.T, output string) {
		name, version, spec := parseVersion(output)
		if name == "" || strings.ContainsAny(version+spec, "\n") {
			t.Errorf("%q %q %q", name, version, spec)
		}
		b := Binary{Path: "/x", Name: name, Version: version, SpecVersion: spec}
		if got := b.OCIVersion("1.0.2"); got == "" {
			t.Error("no version")
		}
		if f := InfoFeatures(b); f.Linux == nil {
			t.Error("no features")
		}
	})
}
