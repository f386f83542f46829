// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Inventory is what is there: how many of each thing, by kind and name.
type Inventory map[Thing]int

// Thing is something that a container may leave behind.
type Thing struct{ Kind, Name string }

// Kinds of things.
const (
	mountKind     = "mount"
	elsewhereKind = "mount elsewhere" // in a mount namespace that is not the rig's
	processKind   = "process"
	cgroupKind    = "cgroup"
	spaceKind     = "namespace"
	rangeKind     = "range"
	fdKind        = "descriptor"
	movedKind     = "state of moved ids" // goes when ids are moved the next time
)

// Left is something that is there and was not there before.
type Left struct {
	Thing
	Count int
	Owner Owner
}

// Owner is whose it is to remove something.
type Owner string

// The owners. Of the shim's is what it makes or what is made for it; of the others',
// what containerd or the client makes for itself.
const (
	Shims  Owner = "shim"
	Others Owner = "others"
)

// Compare lists what is there after but was not before, sorted. What is in a directory
// that is new counts as that directory.
func Compare(before, after Inventory) []Left {
	var list []Left
	for thing, n := range after {
		if more := n - before[thing]; more > 0 && !inNew(before, after, thing) {
			list = append(list, Left{thing, more, owner(thing)})
		}
	}
	slices.SortFunc(list, func(a, b Left) int { return strings.Compare(a.Kind+a.Name, b.Kind+b.Name) })
	return list
}

// inNew tells whether a file is in a directory that was not there before.
func inNew(before, after Inventory, thing Thing) bool {
	for path := filepath.Dir(thing.Name); len(path) > 1; path = filepath.Dir(path) {
		parent := Thing{thing.Kind, path}
		if after[parent] > before[parent] {
			return true
		}
	}
	return false
}

// Merge adds what another inventory has.
func (i Inventory) Merge(kind string, counts map[string]int) {
	for name, n := range counts {
		i[Thing{kind, name}] += n
	}
}

// Of tells whether a name is of a life: none is a number more than another's.
func Of(l Life, name string) bool {
	for rest := name; ; {
		at := strings.Index(rest, l.Mark())
		if at < 0 {
			return false
		}
		if at == 0 || !isWord(rest[at-1]) {
			return true
		}
		rest = rest[at+1:]
	}
}

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// fileKinds are those of files, by the directory that they are below.
var fileKinds = []struct{ dir, kind string }{
	{"/run/isolate/.notify/", "listener"},
	{"/run/isolate/.tmp/", "temporary file"},
	{"/run/isolate/", "record"},
	{"/var/lib/isolate/", movedKind},
	{"/run/containerd/s/", "socket"},
	{"/run/containerd/fifo/", "pipe"},
	{"/run/containerd/runc/", "runtime state"},
	{"/run/user/", "runtime state"},
	{"/run/crun/", "runtime state"},
	{"/run/netns/", "network namespace"},
}

// fileKind is the kind of a file.
func fileKind(path string) string {
	for _, f := range fileKinds {
		if strings.HasPrefix(path, f.dir) {
			return f.kind
		}
	}
	switch {
	case strings.Contains(path, "/io.containerd.runtime.v2.task/"):
		return "bundle"
	case filepath.Base(filepath.Dir(path)) == "tmp":
		return "temporary file"
	}
	return "file"
}

// owner is whose it is to remove something. The client makes the pipes, and ctr leaves
// them when it is killed.
func owner(t Thing) Owner {
	if t.Kind == "pipe" {
		return Others
	}
	return Shims
}

// Counts adds up by kind what an owner has left.
func Counts(list []Left, owner Owner) map[string]int {
	counts := map[string]int{}
	for _, l := range list {
		if l.Owner == owner {
			counts[l.Kind] += l.Count
		}
	}
	return counts
}

// describe is such counts as text, sorted.
func describe(counts map[string]int) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, plural(counts[kind], kind))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}
