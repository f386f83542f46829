// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// MaxSize bounds a document, in bytes. The TOML parser recurses for each level of
// nesting, and its time grows with the square of the number of unknown keys; a file
// that sets every key is below 4 KiB.
const MaxSize = 16 << 10

// document is a configuration file, or the text that a caller sends in its place.
type document struct {
	Config

	// Names of runc options in containerd's CRI configuration. They set the same as
	// the table [runtime].
	BinaryName    *string
	Root          *string
	SystemdCgroup *bool
}

// runcKeys maps names of runc options in containerd's CRI configuration to the keys
// that set the same here.
var runcKeys = map[string]string{
	"BinaryName":    "runtime.binary",
	"Root":          "runtime.root",
	"SystemdCgroup": "runtime.systemd_cgroup",
}

// taskKeys are the other keys of such a table: settings of one task, which package
// options reads, and the fields of runtimeoptions itself.
var taskKeys = []string{
	"NoPivotRoot", "NoNewKeyring", "ShimCgroup", "IoUid", "IoGid",
	"CriuImagePath", "CriuWorkPath", "TaskApiAddress", "TaskApiVersion",
	"TypeUrl", "ConfigPath", "ConfigBody",
}

// tables has the tables of a document and none of their keys, so that a strict
// decoder names each key that a document sets.
type tables struct {
	Runtime, IDs, Rootfs, Volumes, LXCFS, Cgroup, Annotations struct{}
}

// apply layers one document over c. With runc set, the document may have the keys of
// runc's options. apply checks keys and types; its caller checks values, once all
// layers are there.
func (c Config) apply(name string, body []byte, runc bool) (Config, Origins, error) {
	if len(body) > MaxSize {
		return Config{}, nil, &Error{
			Origin: name,
			Reason: fmt.Sprintf("%d bytes are more than the %d that a configuration may have", len(body), MaxSize),
		}
	}
	origins, err := origins(name, body, runc)
	if err != nil {
		return Config{}, nil, err
	}
	doc := document{Config: c.clone()}
	if err := toml.Unmarshal(body, &doc); err != nil {
		return Config{}, nil, decodeError(name, err)
	}
	if doc.BinaryName != nil {
		doc.Runtime.Binary = *doc.BinaryName
	}
	if doc.Root != nil {
		doc.Runtime.Root = *doc.Root
	}
	if doc.SystemdCgroup != nil {
		doc.Runtime.SystemdCgroup = *doc.SystemdCgroup
	}
	return doc.Config, origins, nil
}

// origins lists the keys that a document sets. Keys and tables that do not exist,
// and settings that are made twice, are errors. It reports all of them at once.
func origins(name string, body []byte, runc bool) (Origins, error) {
	var all *toml.StrictMissingError
	err := toml.NewDecoder(bytes.NewReader(body)).DisallowUnknownFields().Decode(&tables{})
	if err != nil && !errors.As(err, &all) {
		return nil, decodeError(name, err)
	}
	found := Origins{}
	if all == nil {
		return found, nil
	}
	var problems []error
	lines := bytes.Split(body, []byte("\n"))
	for _, e := range all.Errors {
		written, origin := writtenKey(lines, &e), at(name, &e)
		key := written
		if ours, ok := runcKeys[written]; runc && ok {
			key = ours
		}
		_, known := keyNamed(key)
		switch earlier, twice := found[key]; {
		case runc && slices.Contains(taskKeys, written):
		case !known && strings.HasSuffix(e.Error(), "missing table"):
			problems = append(problems, &Error{origin, "[" + written + "]", "unknown table" + DidYouMean(written, tableNames())})
		case !known:
			problems = append(problems, &Error{origin, written, "unknown key" + DidYouMean(written, keyNames())})
		case twice:
			problems = append(problems, &Error{origin, written, "set already at " + earlier})
		default:
			found[key] = origin
		}
	}
	return found, errors.Join(problems...)
}

// writtenKey is the full name of a key that a strict decoder has named. For a key in
// an inline table the decoder names only the last part; the table stands before it in
// the line.
func writtenKey(lines [][]byte, e *toml.DecodeError) string {
	var parts []string
	row, column := e.Position()
	if table, _, inline := strings.Cut(string(lines[row-1][:column-1]), "="); inline {
		parts = append(parts, strings.Trim(table, " \t\"'"))
	}
	for _, part := range e.Key() {
		if strings.Contains(part, ".") { // "lxcfs.mode" in quotes is one word
			part = fmt.Sprintf("%q", part)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ".")
}

// at is the file and line of an error.
func at(name string, e *toml.DecodeError) string {
	row, _ := e.Position()
	return fmt.Sprintf("%s:%d", name, row)
}

// decodeError turns an error of the TOML library into one that names file, line
// and key.
func decodeError(name string, err error) error {
	var de *toml.DecodeError
	if !errors.As(err, &de) {
		return fmt.Errorf("%s: %w", name, err)
	}
	out := &Error{at(name, de), strings.Join(de.Key(), "."), strings.TrimPrefix(de.Error(), "toml: ")}
	k, ok := keyNamed(cmp.Or(runcKeys[out.Key], out.Key))
	switch {
	// The library names Go types; the error says what the file should hold.
	case ok && strings.Contains(out.Reason, "struct field"):
		out.Reason = "wrong type: want " + k.Type()
	case slices.Contains(tableNames(), out.Key):
		out.Reason = "wrong type: it is a table; write [" + out.Key + "]"
	}
	return out
}

func keyNames() []string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.Name
	}
	return names
}

func tableNames() []string {
	var names []string
	for _, k := range keys {
		if table, _, ok := strings.Cut(k.Name, "."); ok && !slices.Contains(names, table) {
			names = append(names, table)
		}
	}
	return names
}
