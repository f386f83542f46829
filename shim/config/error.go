// SPDX-License-Identifier: Apache-2.0

package config

// Origins maps the dotted name of a key to the place where its value was set:
// "file:line". A key that is not in the map has its default.
type Origins map[string]string

// Error is a problem with one key or line of a document.
type Error struct {
	// Origin is the document, with the line if that is known, or the annotation.
	Origin string
	// Key is the dotted name as written, "" if the line is not a key.
	Key string
	// Reason says what is wrong and how to mend it.
	Reason string
}

// Error is "file:line: key: reason".
func (e *Error) Error() string {
	text := e.Reason
	for _, part := range []string{e.Key, e.Origin} {
		if part != "" {
			text = part + ": " + text
		}
	}
	return text
}
