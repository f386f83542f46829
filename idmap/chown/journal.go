// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// entry is an inode that a chown alone would harm, as it was before.
type entry struct {
	// Paths are its names below the root of what was walked; more than one for
	// a file with hard links. They are bytes, since file names need not be text.
	Paths [][]byte `json:"paths"`
	attributes
}

// encodeJournal writes entries, one a line.
func encodeJournal(entries []entry) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, e := range entries {
		if err := e.valid(); err != nil {
			return nil, err
		}
		if err := enc.Encode(e); err != nil {
			return nil, fmt.Errorf("encode journal: %w", err)
		}
	}
	return b.Bytes(), nil
}

// parseJournal reads what encodeJournal wrote. A journal is complete or does not
// exist, so everything that cannot be read is an error. That includes unknown
// fields: each is an attribute that the file would lose.
func parseJournal(data []byte) ([]entry, error) {
	var entries []entry
	for n := 1; len(data) > 0; n++ {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			return nil, fmt.Errorf("journal line %d: cut off", n)
		}
		data = rest
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.DisallowUnknownFields()
		var e entry
		if err := dec.Decode(&e); err != nil {
			return nil, fmt.Errorf("journal line %d: %w", n, err)
		}
		if dec.More() {
			return nil, fmt.Errorf("journal line %d: more than one entry", n)
		}
		if err := e.valid(); err != nil {
			return nil, fmt.Errorf("journal line %d: %w", n, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (e entry) valid() error {
	if len(e.Paths) == 0 {
		return errors.New("entry without a path")
	}
	for _, p := range e.Paths {
		if err := validPath(p); err != nil {
			return err
		}
	}
	if e.Mode&^(modeType|modePerm) != 0 {
		return fmt.Errorf("mode %o is none", e.Mode)
	}
	for _, value := range [][]byte{e.Capability, e.Access, e.Default} {
		if value != nil && len(value) == 0 {
			return errors.New("empty attribute")
		}
	}
	return nil
}

// validPath takes names below a root only: the root itself, or components none of
// which leads elsewhere.
func validPath(path []byte) error {
	if string(path) == "." {
		return nil
	}
	for _, name := range bytes.Split(path, []byte("/")) {
		if len(name) == 0 || string(name) == "." || string(name) == ".." || bytes.IndexByte(name, 0) >= 0 {
			return fmt.Errorf("path %q does not stay below its root", path)
		}
	}
	return nil
}
