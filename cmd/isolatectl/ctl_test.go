// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/cmd/isolatectl/check"
	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/pool"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

func TestMain(m *testing.M) {
	lxcfs.MaybeChild()
	os.Exit(m.Run())
}

// call runs isolatectl.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), append([]string{"isolatectl"}, args...), &out, &err)
	return code, out.String(), err.String()
}

func configDir(t *testing.T, body string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestConfig(t *testing.T) {
	t.Parallel()
	dir := configDir(t, "nesting = \"off\"\n[ids]\npool = [\"131072-262143\"]\n")
	code, out, errText := call(t, "config", "--config-dir", dir)
	if code != 0 || errText != "" {
		t.Fatalf("%d %s", code, errText)
	}
	for _, line := range []string{
		`nesting = "off"`, "# " + dir + "/config.toml:1", `ids.pool = ["131072-262143"]`, "# " + dir + "/config.toml:3",
		`lxcfs.mode = "auto"`, "# default", "annotations.allow = []",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is not in\n%s", line, out)
		}
	}

	// What is printed can be read back: it is TOML, and means the same.
	for _, flags := range [][]string{nil, {"-d"}} {
		_, out, _ := call(t, append([]string{"config", "--config-dir", dir}, flags...)...)
		again, _, err := config.Load(configDir(t, out))
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		before, _, err := config.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(again)
		b, _ := json.Marshal(before)
		if strings.ReplaceAll(string(a), "[]", "null") != strings.ReplaceAll(string(b), "[]", "null") {
			t.Errorf("got  %s\nwant %s", a, b)
		}
	}

	_, out, _ = call(t, "config", "--json", "--config-dir", dir)
	var list []struct {
		Key, Origin, Type, Description, Annotation string
		Value                                      any
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != len(config.Keys()) || list[0].Key != "nesting" || list[0].Value != "off" ||
		list[0].Origin != dir+"/config.toml:1" || list[0].Annotation != "io.containerd.isolate.nesting" {
		t.Errorf("%+v", list)
	}
	for _, s := range list {
		if s.Type == "" || s.Description == "" || s.Origin == "" {
			t.Errorf("incomplete: %+v", s)
		}
	}
}

func TestCalls(t *testing.T) {
	t.Parallel()
	broken := configDir(t, "lxcsf.mode = \"off\"")
	for _, c := range []struct {
		name string
		args []string
		code int
		text string
	}{
		{"broken configuration", []string{"config", "--config-dir", broken}, usage, "config.toml:1: lxcsf.mode: unknown key"},
		{"broken configuration, ids", []string{"ids", "--config-dir", broken}, usage, "lxcsf.mode"},
		{"broken configuration, described", []string{"config", "-d", "--config-dir", broken}, usage, "lxcfs.mode = "},
		{"no such command", []string{"chekc"}, usage, `no command "chekc"; did you mean "check"?`},
		{"nothing like a command", []string{"zzzzzzzz"}, usage, "known are apparmor, check"},
		{"no such command below one", []string{"apparmor", "laod"}, usage, `apparmor has no command "laod"; did you mean "load"?`},
		{"no such flag", []string{"check", "--jsno"}, usage, `check has no flag -jsno; did you mean "--json"?`},
		{"flag of a command below one", []string{"apparmor", "load", "--nope"}, usage, "apparmor load has no flag -nope"},
		{"wrong value", []string{"install", "--timeout", "soon"}, usage, "install: "},
		{"no way to restart", []string{"uninstall", "--restart", "now"}, usage, `--restart is "now", and can be never, systemd, signal`},
		{"the version", []string{"version"}, 0, "isolate "},
		{"the version, for programs", []string{"version", "--json"}, 0, `"platform": "linux/`},
		{"completion", []string{"completion", "bash"}, 0, "isolatectl"},
		{"completion of a flag", []string{"check", "--j", "--generate-shell-completion"}, 0, "--json:print JSON"},
		{"no such shell", []string{"completion", "tcsh"}, usage, "tcsh"},
		{"argument", []string{"config", "x"}, usage, `takes no argument, not "x"`},
		{"flag", []string{"config", "--nonsense"}, usage, "nonsense"},
		{"lxcfs without a directory", []string{"lxcfs"}, usage, "takes one absolute directory"},
		{"lxcfs in a relative directory", []string{"lxcfs", "x"}, usage, "takes one absolute directory"},
		{"no lxcfs", []string{"lxcfs", "--program", "/nope", "/x"}, usage, "install the package lxcfs"},
		{"version", []string{"--version"}, 0, "isolate "},
		{"nothing", nil, 0, "COMMANDS"},
		{"help", []string{"help"}, 0, "check"},
	} {
		code, out, errText := call(t, c.args...)
		if code != c.code || !strings.Contains(out+errText, c.text) || strings.Count(errText, "\n") > 1 {
			t.Errorf("%s: %d\n%s\n%s", c.name, code, out, errText)
		}
	}
}

func TestCheckExitsWithItsResult(t *testing.T) {
	t.Parallel()
	broken := configDir(t, "x = 1")
	code, out, _ := call(t, "check", "--json", "--config-dir", broken)
	var report struct {
		Result check.Result
		Lines  []check.Line
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	if code != 2 || report.Result != check.Failed || len(report.Lines) == 0 {
		t.Errorf("%d %+v", code, report)
	}
	code, out, _ = call(t, "check", "--config-dir", broken)
	if code != 2 || !strings.Contains(out, "cannot run") {
		t.Errorf("%d %s", code, out)
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	// Ids that no other test uses: processes of this machine count.
	span := idmap.Span{First: 2097152000, Size: 4 * 65536}
	dir, state := configDir(t, fmt.Sprintf("ids.pool = [%q]\n", span)), filepath.Join(t.TempDir(), "ids")
	report, err := idsIn(t.Context(), dir, state, true)
	if err != nil || len(report.Ranges) != 0 || len(report.Pool) != 1 || report.Size != 65536 {
		t.Fatalf("%+v %v", report, err)
	}
	if _, err := os.Stat(state); err == nil {
		t.Error("looking made the directory")
	}

	p, err := pool.Open(state, []idmap.Span{span})
	if err != nil {
		t.Fatal(err)
	}
	first, err := p.AcquirePreferred(t.Context(), pool.Owner{Namespace: "k8s.io", ID: "kept"}, 65536, 0)
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.AcquirePreferred(t.Context(), pool.Owner{Namespace: "default", ID: "gone"}, 131072, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	report, err = idsIn(t.Context(), dir, state, false)
	if err != nil {
		t.Fatal(err)
	}
	want := idHolder{First: first.First, Last: first.First + 65535, Namespace: "k8s.io", ID: "kept", State: held}
	if len(report.Ranges) != 1 || report.Ranges[0] != want {
		t.Errorf("got %+v, want %+v", report.Ranges, want)
	}
	var text bytes.Buffer
	if err := report.write(&text); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"pool 2097152000-2097414143", "2097152000  2097217535  k8s.io", "kept", "held"} {
		if !strings.Contains(text.String(), part) {
			t.Errorf("%q is not in\n%s", part, text.String())
		}
	}
	// What a caller has mapped by itself, be it outside of the pool.
	other, err := p.Adopt(t.Context(), idmap.Contiguous(1<<24+65536*4, 65536), pool.Owner{Namespace: "k8s.io", ID: "pod"}, "", false)
	if err != nil {
		t.Fatal(err)
	}
	report, err = idsIn(t.Context(), dir, state, false)
	if err != nil || len(report.Ranges) != 2 || report.Ranges[0].ID != "pod" || report.Ranges[0].State != adopted || report.Ranges[1] != want {
		t.Errorf("with adopted ids: %+v, %v", report.Ranges, err)
	}
	for _, l := range []*pool.Lease{other, first} {
		if err := l.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	report, err = idsIn(t.Context(), dir, state, false)
	if err != nil || len(report.Ranges) != 0 {
		t.Errorf("%+v %v", report, err)
	}
}

// The manual page says all that the help says, in a form that man(1) understands.
func TestMan(t *testing.T) {
	t.Parallel()
	code, page, errText := call(t, "man")
	if code != 0 {
		t.Fatal(code, errText)
	}
	for _, part := range []string{
		".TH ISOLATECTL 8\n", ".SS \"check\"\n", ".SS \"apparmor load\"\n", ".SS \"lxcfs DIRECTORY\"\n", ".B \\-\\-json\n", ".SH EXIT STATUS\n",
	} {
		if !strings.Contains(page, part) {
			t.Errorf("%q is not in\n%s", part, page)
		}
	}
	if strings.Contains(page, "pause") {
		t.Error("it has a command for nobody")
	}
	for text, want := range map[string]string{".x": `\&.x`, "a\n'b": "a\n\\&'b", `a\b-c`: `a\eb\-c`} {
		if got := roff(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}
