// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
)

// Origin tells where a value was set. The zero value is the built-in default.
type Origin struct {
	// File is a path, or another name of a document ("runtime options").
	File string
	// Line counts from 1; 0 when the document has no lines.
	Line int
}

// String is "default", "file" or "file:line".
func (o Origin) String() string {
	switch {
	case o.File == "":
		return "default"
	case o.Line == 0:
		return o.File
	}
	return fmt.Sprintf("%s:%d", o.File, o.Line)
}

// MarshalText makes an origin a string in JSON.
func (o Origin) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Origins tells for keys, by their dotted name, where their value was set. A key
// that is not in the map has its default.
type Origins map[string]Origin

// With returns the origins after a layer with the origins over.
func (o Origins) With(over Origins) Origins {
	out := make(Origins, len(o)+len(over))
	maps.Copy(out, o)
	maps.Copy(out, over)
	return out
}

// Error is a problem with one key or line of a document.
type Error struct {
	Origin Origin
	// Key is the dotted name as written, "" if the line is not a key.
	Key string
	// Reason says what is wrong and how to mend it.
	Reason string
}

// Error is "file:line: key: reason".
func (e *Error) Error() string {
	switch {
	case e.Key == "":
		return fmt.Sprintf("%s: %s", e.Origin, e.Reason)
	case e.Origin == Origin{}:
		return fmt.Sprintf("%s: %s", e.Key, e.Reason)
	}
	return fmt.Sprintf("%s: %s: %s", e.Origin, e.Key, e.Reason)
}
