// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// MaxSize bounds a document, in bytes. The TOML parser recurses for each level
// of nesting, so an unbounded one could exhaust the stack; ours are below 4 KiB.
const MaxSize = 64 << 10

// document is a configuration file, or what a caller sends in its place.
type document struct {
	Config

	// The names that containerd's own runc options have in its CRI
	// configuration; the same settings as [runtime].
	BinaryName    *string
	Root          *string
	SystemdCgroup *bool
}

// runcKeys maps the runc option names of containerd's CRI configuration that are
// settings of ours to their name here.
var runcKeys = map[string]string{
	"BinaryName":    "runtime.binary",
	"Root":          "runtime.root",
	"SystemdCgroup": "runtime.systemd_cgroup",
}

// taskKeys are the other keys of such an options table: settings of one task,
// which package options reads, and those of runtimeoptions itself.
var taskKeys = []string{
	"NoPivotRoot", "NoNewKeyring", "ShimCgroup", "IoUid", "IoGid",
	"CriuImagePath", "CriuWorkPath", "TaskApiAddress", "TaskApiVersion",
	"TypeUrl", "ConfigPath", "ConfigBody",
}

// dialect says which keys a document may have.
type dialect int

const (
	// hostFile is a file of the administrator: our keys alone.
	hostFile dialect = iota
	// runtimeOptions is what a caller sends: the keys of runc's options too.
	runtimeOptions
)

// apply layers one document over c. It checks keys and types; values are
// checked by the caller, once all layers are there.
func (c Config) apply(name string, body []byte, d dialect) (Config, Origins, error) {
	if len(body) > MaxSize {
		return Config{}, nil, &Error{
			Origin: Origin{File: name},
			Reason: fmt.Sprintf("%d bytes are more than the %d that a configuration may have", len(body), MaxSize),
		}
	}
	origins, err := origins(name, body, d)
	if err != nil {
		return Config{}, nil, err
	}
	doc := document{Config: c.clone()}
	// A list replaces the one below; the decoder would write into it.
	if _, set := origins["ids.pool"]; set {
		doc.IDs.Pool = nil
	}
	if _, set := origins["annotations.allow"]; set {
		doc.Annotations.Allow = nil
	}
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

// origins lists the keys that a document sets. Keys that do not exist, tables
// that do not exist and settings made twice are errors, all of them at once.
func origins(name string, body []byte, d dialect) (Origins, error) {
	var (
		found    = Origins{}
		problems []error
		parser   unstable.Parser
		table    string
	)
	parser.Reset(body)
	at := func(n *unstable.Node) Origin {
		it := n.Key()
		if !it.Next() {
			return Origin{File: name}
		}
		return Origin{File: name, Line: parser.Shape(it.Node().Raw).Start.Line}
	}
	bad := func(n *unstable.Node, key, reason string) {
		problems = append(problems, &Error{Origin: at(n), Key: key, Reason: reason})
	}
	var visit func(prefix string, n *unstable.Node)
	visit = func(prefix string, n *unstable.Node) {
		written := dotted(prefix, n)
		if isTable(written) && n.Value().Kind == unstable.InlineTable {
			for it := n.Value().Children(); it.Next(); {
				visit(written, it.Node())
			}
			return
		}
		key := written
		if d == runtimeOptions {
			if slices.Contains(taskKeys, key) {
				return
			}
			if ours, ok := runcKeys[key]; ok {
				key = ours
			}
		}
		if _, ok := keyNamed(key); !ok {
			bad(n, written, "unknown key"+didYouMean(written, keyNames()))
			return
		}
		if earlier, twice := found[key]; twice {
			bad(n, written, fmt.Sprintf("set already at %s", earlier))
			return
		}
		found[key] = at(n)
	}
	for parser.NextExpression() {
		n := parser.Expression()
		switch n.Kind {
		case unstable.Table:
			table = dotted("", n)
			if !isTable(table) {
				bad(n, "["+table+"]", "unknown table"+didYouMean(table, tableNames()))
			}
		case unstable.ArrayTable:
			table = dotted("", n)
			bad(n, "[["+table+"]]", "lists of tables are not used here; write ["+table+"]")
		case unstable.KeyValue:
			if table == "" || isTable(table) {
				visit(table, n)
			}
		default: // comments are not kept
		}
	}
	if err := parser.Error(); err != nil {
		// The decoder words syntax errors better and knows the line.
		var doc document
		if derr := toml.Unmarshal(body, &doc); derr != nil {
			err = derr
		}
		problems = append(problems, decodeError(name, err))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return found, nil
}

// dotted is the full name of a key or table.
func dotted(prefix string, n *unstable.Node) string {
	parts := make([]string, 0, 2)
	if prefix != "" {
		parts = append(parts, prefix)
	}
	for it := n.Key(); it.Next(); {
		part := string(it.Node().Data)
		if strings.Contains(part, ".") { // "lxcfs.mode" in quotes is one word
			part = fmt.Sprintf("%q", part)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ".")
}

// decodeError turns an error of the TOML library into one that names file, line
// and key.
func decodeError(name string, err error) error {
	var de *toml.DecodeError
	if !errors.As(err, &de) {
		return fmt.Errorf("%s: %w", name, err)
	}
	row, _ := de.Position()
	out := &Error{
		Origin: Origin{File: name, Line: row},
		Key:    strings.Join(de.Key(), "."),
		Reason: strings.TrimPrefix(de.Error(), "toml: "),
	}
	known := out.Key
	if ours, ok := runcKeys[known]; ok {
		known = ours
	}
	// The library names Go types; say what the file should hold.
	if k, ok := keyNamed(known); ok && strings.Contains(out.Reason, "struct field") {
		out.Reason = "wrong type: want " + k.Type
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

func isTable(name string) bool { return slices.Contains(tableNames(), name) }
