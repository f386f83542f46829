// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"strings"
	"testing"
)

const ourLine = `imports = ["/etc/containerd/conf.d/*.toml"] # by isolatectl install` + "\n"

func TestWithImport(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text, want string
		err              string
	}{
		{"after the version", "version = 3\n[a]\nb = 1\n", "version = 3\n" + ourLine + "[a]\nb = 1\n", ""},
		{"after a version with a comment", "# mine\n version=2 # old\nroot = '/x'\n", "# mine\n version=2 # old\n" + ourLine + "root = '/x'\n", ""},
		{"after a last line without an end", "version = 3", "version = 3\n" + ourLine, ""},
		{"instead of an empty list", "version = 3\nimports = [ ] # none\n[a]\n", "version = 3\n" + ourLine + "[a]\n", ""},
		{"instead of an empty list, on Windows' lines", "version = 3\r\nimports = []\r\n", "version = 3\r\n" + ourLine, ""},
		{"not into a table", "version = 3\n[a]\nimports = []\n", "", "before the first table"},
		{"not into a string", "x = '''\nversion = 9\n'''\nversion = 3\n", "", "before the first table"},
		{"not into a list of several lines", "imports = [\n]\nversion = 3\n", "", "before the first table"},
		{"not beside others", "version = 3\nimports = ['/x.toml']\n", "", "imports other files already"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f, err := ParseFile("/etc/containerd/config.toml", test.text)
			if err != nil {
				t.Fatal(err)
			}
			out, edit, err := f.WithImport()
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), f.Name) {
					t.Errorf("got %v, want %q", err, test.err)
				}
				return
			}
			if err != nil || out.Text != test.want || out.DropInDir() != "/etc/containerd/conf.d" {
				t.Fatalf("got %q, %v, want %q", out.Text, err, test.want)
			}
			// Whatever else was changed meanwhile stays.
			later := strings.Replace(out.Text, "[a]", "[c]", 1)
			want := strings.Replace(test.text, "[a]", "[c]", 1)
			got, ok := edit.Undo(later)
			if norm := strings.NewReplacer("\r", "").Replace; !ok || norm(strings.TrimSuffix(got, "\n")) != norm(strings.TrimSuffix(want, "\n")) {
				t.Errorf("undone: %q, %t, want %q", got, ok, want)
			}
			if _, ok := edit.Undo(got); ok {
				t.Error("undone twice")
			}
		})
	}
}

func TestDropInDir(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ imports, want string }{
		{`[]`, ""},
		{`["/etc/containerd/conf.d/*.toml"]`, "/etc/containerd/conf.d"},
		{`["runtimes/*.toml"]`, "/etc/containerd/runtimes"},
		{`["/a.toml", "/b/./*.toml"]`, "/b"},
		{`["/etc/*/*.toml", "/c/[x]/*.toml"]`, ""},
		{`["/c/x*.toml", "/c/*"]`, ""},
	} {
		f, err := ParseFile("/etc/containerd/config.toml", "version = 3\nimports = "+test.imports)
		if err != nil || f.DropInDir() != test.want {
			t.Errorf("%s: got %q, %v, want %q", test.imports, f.DropInDir(), err, test.want)
		}
	}
}

func TestParseFileRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "version = 1", "root = '/x'", "version = 'x'", "version = 3\nversion = 3", "imports = 5\nversion = 3"} {
		if f, err := ParseFile("/c.toml", text); err == nil || !strings.Contains(err.Error(), "/c.toml") {
			t.Errorf("%q: %+v, %v", text, f, err)
		}
	}
	if _, _, err := (File{Name: "/c", Imports: []string{"/x"}}).WithImport(); !errors.Is(err, ErrImports) {
		t.Errorf("got %v", err)
	}
}

// Whatever a configuration looks like, an edit adds the import and nothing else,
// and can be undone, or is refused.
func FuzzWithImport(f *testing.F) {
	for _, text := range []string{"version = 3\n", "version = 3\nimports = []\n[a]\n", "x = \"\"\"\nversion = 3\n\"\"\"\nversion = 2", "imports = [] # \r\nversion = 4\r\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file, err := ParseFile("/c.toml", text)
		if err != nil || len(file.Imports) > 0 {
			return
		}
		out, edit, err := file.WithImport()
		if err != nil {
			return
		}
		undone, ok := edit.Undo(out.Text)
		if !ok || !sameBut(text, undone, "") || !sameBut(text, out.Text, "imports") {
			t.Fatalf("%q became %q and %q", text, out.Text, undone)
		}
	})
}
