// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// DropIns is what containerd 2.2 and later import, as `containerd config default`
// prints it.
const DropIns = "/etc/containerd/conf.d/*.toml"

// File is a main configuration file of containerd.
type File struct {
	Name    string // absolute
	Text    string
	Version int // of the format
	Imports []string
}

// ParseFile reads a configuration file.
func ParseFile(name, text string) (File, error) {
	var head struct {
		Version int
		Imports []string
	}
	err := toml.Unmarshal([]byte(text), &head)
	f := File{Name: name, Text: text, Version: head.Version, Imports: head.Imports}
	switch {
	case err != nil:
		return f, fmt.Errorf("read %s: %w", name, err)
	case f.Version < 2:
		return f, fmt.Errorf("%s has version %d of the format: convert it (containerd config migrate) to 2 or later", name, f.Version)
	}
	return f, nil
}

// NewFile is the file for a host that has none: containerd then runs on its
// defaults, and imports nothing. version is the newest one that containerd reads.
func NewFile(name string, version int) File {
	return File{
		Name: name, Version: version, Imports: []string{DropIns},
		Text: fmt.Sprintf("version = %d\nimports = [%q]\n", version, DropIns),
	}
}

// DropInDir returns the directory of which the file imports everything that ends
// in .toml; "" if there is none.
func (f File) DropInDir() string {
	for _, pattern := range f.Imports {
		if !filepath.IsAbs(pattern) { // is relative to the file
			pattern = filepath.Join(filepath.Dir(f.Name), pattern)
		}
		if dir, base := filepath.Split(filepath.Clean(pattern)); base == "*.toml" && !strings.ContainsAny(dir, `*?[\`) {
			return filepath.Clean(dir)
		}
	}
	return ""
}

// Edit is the one line that was added to a configuration file, or that stands for
// another one.
type Edit struct {
	Path string `json:"path"`
	Line string `json:"line"`
	// Was is the line that it stands for, "" if there was none.
	Was string `json:"was,omitempty"`
}

// ErrImports says that a file has imports of its own, which are not touched.
var ErrImports = errors.New("it imports other files already")

var (
	versionLine = regexp.MustCompile(`^\s*version\s*=\s*\d+\s*(#.*)?$`)
	emptyLine   = regexp.MustCompile(`^\s*imports\s*=\s*\[\s*\]\s*(#.*)?$`)
)

// WithImport returns the file with an import of DropIns: as one more line, or
// instead of an empty list.
func (f File) WithImport() (File, Edit, error) {
	e := Edit{Path: f.Name, Line: fmt.Sprintf("imports = [%q] # by isolatectl install", DropIns)}
	if len(f.Imports) > 0 {
		return f, e, fmt.Errorf("%s: %w: add %q to its imports", f.Name, ErrImports, DropIns)
	}
	lines := strings.SplitAfter(f.Text, "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return emptyLine.MatchString(strings.TrimSpace(l)) })
	if i >= 0 {
		e.Was = strings.TrimRight(lines[i], "\r\n")
		lines[i] = e.Line + "\n"
	} else {
		i = slices.IndexFunc(lines, func(l string) bool { return versionLine.MatchString(strings.TrimSpace(l)) })
		if i >= 0 && !strings.HasSuffix(lines[i], "\n") {
			lines[i] += "\n"
		}
		lines = slices.Insert(lines, i+1, e.Line+"\n")
	}
	out, err := ParseFile(f.Name, strings.Join(lines, ""))
	// Lines that only look as if they were at the top of the file show here.
	if err != nil || !slices.Equal(out.Imports, []string{DropIns}) || !sameBut(f.Text, out.Text, "imports") {
		return f, e, fmt.Errorf("%s: cannot tell where its imports belong: add the line %q before the first table", f.Name, "imports = [\""+DropIns+"\"]")
	}
	return out, e, nil
}

// Undo takes the line out of a text again, or puts back the one it stands for.
// It returns false if the line is not there any more.
func (e Edit) Undo(text string) (string, bool) {
	lines := strings.SplitAfter(text, "\n")
	i := slices.Index(lines, e.Line+"\n")
	if i < 0 {
		return text, false
	}
	if e.Was == "" {
		lines = slices.Delete(lines, i, i+1)
	} else {
		lines[i] = e.Was + "\n"
	}
	return strings.Join(lines, ""), true
}

// sameBut tells whether two documents mean the same except for a key.
func sameBut(a, b, key string) bool {
	x, err1 := ParseConfig([]byte(a))
	y, err2 := ParseConfig([]byte(b))
	delete(x, key)
	delete(y, key)
	return err1 == nil && err2 == nil && reflect.DeepEqual(x, y)
}
