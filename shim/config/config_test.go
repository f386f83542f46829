// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/idmap"
)

// write makes a configuration directory from name-content pairs.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// changed holds, for each key, TOML that sets it to something else than its
// default, and the value that must come out. A key without an entry fails.
var changed = map[string]struct {
	toml string
	want any
}{
	"nesting":                {`nesting = "off"`, NestingOff},
	"init":                   {`init = "systemd"`, InitSystemd},
	"caps":                   {`caps = "honor"`, CapsHonor},
	"seccomp":                {`seccomp = "keep"`, SeccompKeep},
	"apparmor":               {`apparmor = "keep"`, AppArmorKeep},
	"foreign_netns":          {`foreign_netns = "refuse"`, ForeignNetnsRefuse},
	"pods":                   {`pods = "shared"`, PodsShared},
	"runtime.binary":         {"[runtime]\nbinary = \"crun\"", "crun"},
	"runtime.root":           {"[runtime]\nroot = \"/run/x\"", "/run/x"},
	"runtime.systemd_cgroup": {"[runtime]\nsystemd_cgroup = true", true},
	"ids.pool":               {"[ids]\npool = [\"131072-262143\"]", []IDRange{{idmap.Span{First: 131072, Size: 131072}}}},
	"ids.size":               {"[ids]\nsize = 131072", uint32(131072)},
	"ids.adopt":              {"[ids]\nadopt = \"shared\"", AdoptShared},
	"rootfs.method":          {"[rootfs]\nmethod = \"private\"", RootfsPrivate},
	"rootfs.fallback":        {"[rootfs]\nfallback = \"chown\"", FallbackChown},
	"volumes.require_idmap":  {"[volumes]\nrequire_idmap = true", true},
	"lxcfs.mode":             {"[lxcfs]\nmode = \"require\"", LXCFSRequire},
	"lxcfs.path":             {"[lxcfs]\npath = \"/var/lib/lxcfs\"", "/var/lib/lxcfs"},
	"lxcfs.timeout_ms":       {"[lxcfs]\ntimeout_ms = 50", uint32(50)},
	"lxcfs.nested":           {"[lxcfs]\nnested = false", false},
	"lxcfs.sysinfo":          {"[lxcfs]\nsysinfo = false", false},
	"lxcfs.abort_hung":       {"[lxcfs]\nabort_hung = true", true},
	"cgroup.max_descendants": {"[cgroup]\nmax_descendants = 0", uint32(0)},
	"cgroup.max_depth":       {"[cgroup]\nmax_depth = 9", uint32(9)},
	"annotations.allow":      {"[annotations]\nallow = [\"size\"]", []string{"size"}},
}

func TestEveryKeyIsReadAndHasItsOrigin(t *testing.T) {
	t.Parallel()
	for _, k := range Keys() {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			c, ok := changed[k.Name]
			if !ok {
				t.Fatalf("no test for key %q", k.Name)
			}
			dir := write(t, map[string]string{"config.toml": c.toml + "\n"})
			got, origins, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(k.Get(got), c.want) {
				t.Errorf("value: %#v, want %#v", k.Get(got), c.want)
			}
			want := fmt.Sprintf("%s:%d", filepath.Join(dir, "config.toml"), 1+strings.Count(c.toml, "\n"))
			if len(origins) != 1 || origins[k.Name] != want {
				t.Errorf("origins %v, want only %s from %s", origins, k.Name, want)
			}
		})
	}
}

// The table and the struct must not drift apart.
func TestKeysMatchTheStruct(t *testing.T) {
	t.Parallel()
	var fields []string
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			name := prefix + f.Tag.Get("toml")
			if f.Type.Kind() == reflect.Struct {
				walk(name+".", f.Type)
				continue
			}
			fields = append(fields, name)
		}
	}
	walk("", reflect.TypeFor[Config]())
	if !reflect.DeepEqual(fields, keyNames()) {
		t.Errorf("fields %v\nkeys   %v", fields, keyNames())
	}
	for _, k := range Keys() {
		if !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s: the description is not a sentence: %q", k.Name, k.Doc)
		}
		if err := k.setText(&Config{}, "x"); k.Annotation != "" && errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
		if _, choice := k.Get(Config{}).(Choice); choice != (k.Values != nil) {
			t.Errorf("%s: values %q", k.Name, k.Values)
		}
		for _, v := range k.Values {
			if v != "auto" && !strings.Contains(k.Doc, v) {
				t.Errorf("%s: the description does not say what %q means", k.Name, v)
			}
		}
	}
	allow, _ := keyNamed("annotations.allow")
	if want := strings.Join(annotationNames(), ", "); !strings.Contains(allow.Doc, want) {
		t.Errorf("annotations.allow does not list %s", want)
	}
}

func TestDefaultIsValidAndWhatAnEmptyHostHas(t *testing.T) {
	t.Parallel()
	if p := Default().problems(); len(p) > 0 {
		t.Fatal(p)
	}
	got, origins, err := Load(filepath.Join(t.TempDir(), "absent"))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, Default()) || len(origins) != 0 {
		t.Errorf("%+v %v", got, origins)
	}
	if got.LXCFS.Timeout() != 500*time.Millisecond {
		t.Error(got.LXCFS.Timeout())
	}
}

func TestDropInsWinInTheOrderOfTheirNames(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"config.toml":             "nesting = \"off\"\n[lxcfs]\nmode = \"off\"\ntimeout_ms = 100\n[annotations]\nallow = [\"size\", \"caps\"]",
		"config.d/20-b.toml":      "[lxcfs]\nmode = \"auto\"\n[annotations]\nallow = [\"nesting\"]",
		"config.d/10-a.toml":      "lxcfs.mode = \"require\"\nlxcfs = { path = \"/l\" }\n",
		"config.d/README":         "not TOML",
		"config.d/.10-a.toml.swp": "\x00",
		"config.d/.hidden.toml":   "\x00",
	})
	// TOML does not allow both dotted keys and an inline table of one name.
	if _, _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "10-a.toml:2") {
		t.Fatalf("want an error at 10-a.toml:2, got %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.d/10-a.toml"), []byte("lxcfs.mode = \"require\"\nlxcfs.path = \"/l\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, origins, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Nesting = NestingOff
	want.LXCFS.Mode, want.LXCFS.Path, want.LXCFS.TimeoutMS = LXCFSAuto, "/l", 100
	want.Annotations.Allow = []string{"nesting"}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	for key, place := range map[string]string{
		"nesting": "config.toml:1", "lxcfs.mode": "config.d/20-b.toml:2", "lxcfs.path": "config.d/10-a.toml:2",
		"lxcfs.timeout_ms": "config.toml:4", "annotations.allow": "config.d/20-b.toml:4",
	} {
		if got := origins[key]; got != filepath.Join(dir, place) {
			t.Errorf("%s from %s, want %s", key, got, place)
		}
	}
}

func TestErrorsNameFileLineKeyAndFix(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body string
		want       []string
	}{
		{"typo", "\n[lxcfs]\nmodus = \"off\"", []string{"config.toml:3: lxcfs.modus: unknown key", `did you mean "lxcfs.mode"?`}},
		{"key without its table", "binary = \"crun\"", []string{"config.toml:1: binary: unknown key", `did you mean "runtime.binary"?`}},
		{"nothing near", "colour = 1", []string{"config.toml:1: colour: unknown key; known are annotations.allow, apparmor"}},
		{"table", "[runtimes]\nbinary = \"x\"", []string{"config.toml:1: [runtimes]: unknown table", `did you mean "runtime"?`}},
		{"inline table", "caps = \"full\"\nlxcfs = { path = \"/a=b\", modus = 1 }", []string{"config.toml:2: lxcfs.modus: unknown key", `did you mean "lxcfs.mode"?`}},
		{"value in an inline table", "lxcfs = { path = \"/l\", mode = \"on\" }", []string{`config.toml:1: lxcfs.mode: "on" is not one of`}},
		{"table in a table", "[lxcfs.sub]\na = 1", []string{"config.toml:1: [lxcfs.sub]: unknown table"}},
		{"list of tables", "[[runtime]]\nbinary = \"x\"", []string{"config.toml:1: runtime: ", "write [runtime]"}},
		{"case", "Nesting = \"off\"", []string{"config.toml:1: Nesting: unknown key", `"nesting"`}},
		{"quoted dot", `"lxcfs.mode" = "off"`, []string{"config.toml:1:", "unknown key"}},
		{"table as value", "runtime = 3", []string{"config.toml:1: runtime: wrong type: it is a table"}},
		{"runc option names", "BinaryName = \"crun\"", []string{"config.toml:1: BinaryName: unknown key"}},
		{"type", "nesting = \"off\"\n[ids]\nsize = \"big\"", []string{"config.toml:3: ids.size: wrong type: want integer"}},
		{"negative", "[ids]\nsize = -1", []string{"config.toml:2: ids.size"}},
		{"enum", "[lxcfs]\nmode = \"on\"", []string{`config.toml:2: lxcfs.mode: "on" is not one of "auto", "require" or "off"`}},
		{"fallback", "[rootfs]\nfallback = \"copy\"", []string{`config.toml:2: rootfs.fallback: "copy" is not one of "refuse" or "chown"`}},
		{"apparmor", "apparmor = \"off\"", []string{`config.toml:1: apparmor: "off" is not one of "auto" or "keep"`}},
		{"syntax", "nesting = \"off\"\n[lxcfs\n", []string{"config.toml:2"}},
		{"twice", "caps = \"full\"\ncaps = \"honor\"", []string{"config.toml:2: caps: ", "already defined"}},
		{"two problems", "kaps = \"full\"\nfoo = 1", []string{"config.toml:1: kaps", "config.toml:2: foo"}},
		{"relative binary", "runtime.binary = \"bin/crun\"", []string{"runtime.binary", "neither an absolute path nor a plain name"}},
		{"relative root", "runtime.root = \"run\"", []string{"runtime.root", "not an absolute path"}},
		{"range", "[ids]\npool = [\"1-x\"]", []string{"config.toml:2", "id range"}},
		{"range too high", "[ids]\npool = [\"65536-4294967295\"]", []string{"config.toml:2", "above the largest id, 2147483647"}},
		{"range backwards", "[ids]\npool = [\"131072-65536\"]", []string{"first id is larger"}},
		{"host's ids", "[ids]\npool = [\"0-65535\"]", []string{"config.toml:2: ids.pool", "host's own users"}},
		{"no slot", "[ids]\npool = [\"100000-165535\"]", []string{"config.toml:2: ids.pool", "multiple of 65536"}},
		{"overlap", "[ids]\npool = [\"131072-262143\", \"196608-327679\"]", []string{"overlaps"}},
		{"size", "[ids]\nsize = 1000", []string{"config.toml:2: ids.size: 1000 is not a multiple of 65536"}},
		{"size zero", "[ids]\nsize = 0", []string{"ids.size"}},
		{"size beyond the pool", "[ids]\nsize = 131072\npool = [\"131072-196607\"]", []string{"config.toml:2: ids.size", "no range of ids.pool holds 131072 ids"}},
		{"timeout", "lxcfs.timeout_ms = 5", []string{"lxcfs.timeout_ms: 5 is not between"}},
		{"annotation name", "[annotations]\nallow = [\"sice\"]", []string{`did you mean "size"?`}},
		{"huge", "#" + strings.Repeat("x", MaxSize), []string{"config.toml", "larger than"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := Load(write(t, map[string]string{"config.toml": c.body}))
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in: %v", part, err)
				}
			}
		})
	}
}

func TestUnreadableFilesAreErrors(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"main is a directory":    {"config.toml/x": ""},
		"drop-in is a directory": {"config.d/a.toml/x": ""},
		"config.d is a file":     {"config.d": ""},
	} {
		if _, _, err := Load(write(t, files)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	dir := write(t, map[string]string{"config.d/x": ""})
	if err := os.Symlink("/nowhere", filepath.Join(dir, "config.d/a.toml")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(dir); err == nil {
		t.Error("dangling drop-in: no error")
	}
}

func TestOverlay(t *testing.T) {
	t.Parallel()
	base := Default()
	base.IDs.Pool = []IDRange{{idmap.Span{First: 131072, Size: 1<<20 - 131072}}}
	base.Annotations.Allow = []string{"size"}
	before := fmt.Sprintf("%+v", base)

	// What containerd's CRI plugin sends: the options table as a whole.
	body := []byte("BinaryName = \"/usr/bin/crun\"\nIoUid = 3\nNoNewKeyring = true\nRoot = \"/run/r\"\nSystemdCgroup = true\nTypeUrl = \"x\"\n\n[ids]\npool = [\"1048576-2097151\"]\n[lxcfs]\nmode = \"off\"\n")
	c, err := base.Overlay("runtime options", body)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Runtime = Runtime{Binary: "/usr/bin/crun", Root: "/run/r", SystemdCgroup: true}
	want.IDs.Pool = []IDRange{{idmap.Span{First: 1048576, Size: 1048576}}}
	want.LXCFS.Mode = LXCFSOff
	want.Annotations.Allow = []string{"size"}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if after := fmt.Sprintf("%+v", base); after != before {
		t.Errorf("the base changed: %s", after)
	}

	for _, bad := range []string{
		"BinaryName = \"a\"\n[runtime]\nbinary = \"b\"\n",
		"BinaryNam = \"a\"",
		"BinaryName = 3",
		"[lxcfs]\nmode = \"x\"",
		"\xff",
	} {
		_, err := base.Overlay("runtime options", []byte(bad))
		if err == nil || !strings.Contains(err.Error(), "runtime options:") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestWithAnnotations(t *testing.T) {
	t.Parallel()
	c := Default()
	c.Annotations.Allow = []string{"size", "lxcfs", "require_idmap", "nesting", "init", "caps", "seccomp", "foreign_netns", "pods"}
	got, err := c.WithAnnotations(map[string]string{
		"io.containerd.isolate.size":          "131072",
		"io.containerd.isolate.lxcfs":         "require",
		"io.containerd.isolate.require_idmap": "true",
		"io.containerd.isolate.nesting":       "off",
		"io.containerd.isolate.init":          "other",
		"io.containerd.isolate.caps":          "honor",
		"io.containerd.isolate.seccomp":       "keep",
		"io.containerd.isolate.foreign_netns": "refuse",
		"io.containerd.isolate.pods":          "shared",
		"io.kubernetes.cri.sandbox-id":        "x",
		"io.containerd.isolated":              "not ours",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := c.clone()
	want.IDs.Size, want.LXCFS.Mode, want.Volumes.RequireIDMap = 131072, LXCFSRequire, true
	want.Nesting, want.Init, want.Caps, want.Seccomp, want.ForeignNetns, want.Pods = NestingOff, InitOther, CapsHonor, SeccompKeep, ForeignNetnsRefuse, PodsShared
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}

	some := Default()
	some.Annotations.Allow = []string{"size", "require_idmap", "lxcfs"}
	for _, bad := range []struct{ annotation, value, want string }{
		{"nesting", "off", `add "nesting" to annotations.allow`},
		{"sise", "1", `did you mean "size"?`},
		{"", "1", "unknown"},
		{"runtime.binary", "/x", "unknown"},
		{"size", "1000", "ids.size: 1000 is not a multiple"},
		{"size", "x", "not a number"},
		{"size", "", "not a number"},
		{"size", "4294967296", "not a number"},
		{"require_idmap", "yes", `neither "true" nor "false"`},
		{"lxcfs", "on", "is not one of"},
	} {
		_, err := some.WithAnnotations(map[string]string{AnnotationPrefix + bad.annotation: bad.value})
		if err == nil || !strings.Contains(err.Error(), bad.want) || !strings.Contains(err.Error(), AnnotationPrefix+bad.annotation) {
			t.Errorf("%s=%s: %v", bad.annotation, bad.value, err)
		}
	}
}
