// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/spec"
)

// problems checks each value by itself and beside the others. It is pure: other
// packages find out whether a path exists or a range is free.
func (c Config) problems() []*Error {
	var out []*Error
	bad := func(key, format string, args ...any) {
		out = append(out, &Error{Key: key, Reason: fmt.Sprintf(format, args...)})
	}
	for _, k := range keys {
		if choice, ok := k.field(&c).(*Choice); ok && !slices.Contains(k.Values, string(*choice)) {
			bad(k.Name, "%q is not one of %s", *choice, quotedList(k.Values))
		}
	}
	if b := c.Runtime.Binary; strings.ContainsAny(b, "/\x00") && (!filepath.IsAbs(b) || strings.ContainsRune(b, 0)) {
		bad("runtime.binary", "%q is neither an absolute path nor a plain name", b)
	}
	absolute := func(key, path string) {
		if path != "" && (!filepath.IsAbs(path) || strings.ContainsRune(path, 0)) {
			bad(key, "%q is not an absolute path", path)
		}
	}
	absolute("runtime.root", c.Runtime.Root)
	absolute("lxcfs.path", c.LXCFS.Path)
	if ms := c.LXCFS.TimeoutMS; ms < 10 || ms > 60_000 {
		bad("lxcfs.timeout_ms", "%d is not between 10 and 60000", ms)
	}

	out = append(out, c.IDs.problems()...)
	for _, short := range c.Annotations.Allow {
		if _, ok := keyAnnotated(short); !ok && !spec.IsObeyed(short) {
			bad("annotations.allow", "%q is not a setting a container can choose%s", short, DidYouMean(short, annotationNames()))
		}
	}
	return out
}

// problems checks the pool against itself and the size against the pool.
func (i IDs) problems() []*Error {
	var out []*Error
	bad := func(key, format string, args ...any) {
		out = append(out, &Error{Key: key, Reason: fmt.Sprintf(format, args...)})
	}
	sizeOK := i.Size > 0 && i.Size%idmap.SlotSize == 0
	if !sizeOK {
		bad("ids.size", "%d is not a multiple of %d", i.Size, idmap.SlotSize)
	}
	fits := false
	for n, r := range i.Pool {
		switch {
		case r.First < idmap.SlotSize:
			bad("ids.pool", "%q holds ids below %d, which belong to the host's own users", r, idmap.SlotSize)
		case r.Slots(idmap.SlotSize) == 0:
			bad("ids.pool", "%q holds no range of %d ids that starts at a multiple of %d", r, idmap.SlotSize, idmap.SlotSize)
		}
		for _, earlier := range i.Pool[:n] {
			if r.Overlaps(earlier.Span) {
				bad("ids.pool", "%q overlaps %q", r, earlier)
			}
		}
		fits = fits || r.Slots(i.Size) > 0
	}
	if sizeOK && len(i.Pool) > 0 && len(out) == 0 && !fits {
		bad("ids.size", "no range of ids.pool holds %d ids", i.Size)
	}
	return out
}

// quotedList is `"a", "b" or "c"`.
func quotedList(values []string) string {
	q := make([]string, len(values))
	for i, v := range values {
		q[i] = fmt.Sprintf("%q", v)
	}
	if len(q) < 2 {
		return strings.Join(q, "")
	}
	return strings.Join(q[:len(q)-1], ", ") + " or " + q[len(q)-1]
}

// DidYouMean is `; did you mean "x"?` for the nearest of the names, or a list of
// all names if none is near.
func DidYouMean(written string, names []string) string {
	best, distance := "", 0
	for _, name := range names {
		d := editDistance(strings.ToLower(written), name)
		// The right word in the wrong table is the commonest slip.
		if last := name[strings.LastIndexByte(name, '.')+1:]; last != name {
			d = min(d, 1+editDistance(strings.ToLower(written[strings.LastIndexByte(written, '.')+1:]), last))
		}
		if best == "" || d < distance {
			best, distance = name, d
		}
	}
	if best == "" {
		return ""
	}
	if distance <= max(2, len(written)/3) {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return "; known are " + strings.Join(slices.Sorted(slices.Values(names)), ", ")
}

// editDistance is the Levenshtein distance in bytes. Long words are not compared: no
// name of isolate's is near them.
func editDistance(a, b string) int {
	const long = 64
	if len(a) > long || len(b) > long {
		return max(len(a), len(b))
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
