// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// oneReading refuses JSON that programs read in different ways. data is valid JSON
// that decodes into v, a pointer to a struct.
//
// What isolate decides on is Go's reading, and what runs is the OCI runtime's. Of
// a key that occurs twice, some readers take the first and some the last value.
// encoding/json, which runc uses, takes "Linux" for "linux"; crun, in C, does not,
// and for it a string ends at its first NUL. Nor do they agree on what is no
// Unicode. Such a document could be one with a user namespace here and one
// without it there.
func oneReading(data []byte, v any) error {
	if !utf8.Valid(data) || loneSurrogate(data) {
		return fmt.Errorf("it has text that is no Unicode: %w", ErrRefused)
	}
	r := reader{rest: data}
	if err := r.value(reflect.TypeOf(v)); err != nil {
		return fmt.Errorf("programs read it in different ways: %w: %w", err, ErrRefused)
	}
	return nil
}

// reader walks through valid JSON. A json.Decoder makes a value of each token, which takes
// several times as long.
type reader struct {
	rest []byte
	at   []place // that lead to the value
}

// place is a key of an object, or else an index of an array.
type place struct {
	key   string
	index int
}

func (r *reader) where() string {
	var all []string
	for _, s := range r.at {
		if s.index >= 0 {
			s.key = strconv.Itoa(s.index)
		}
		all = append(all, s.key)
	}
	return strings.Join(all, ".")
}

// next returns the next byte that is no space.
func (r *reader) next() byte {
	r.rest = bytes.TrimLeft(r.rest, space)
	return r.rest[0]
}

const space = " \t\r\n"

// more tells whether an object or array goes on, and takes the comma or the end.
func (r *reader) more(end byte) bool {
	c := r.next()
	if c == end || c == ',' {
		r.rest = r.rest[1:]
	}
	return c != end
}

// value reads a value that goes into a Go type; nil if nobody knows which.
func (r *reader) value(t reflect.Type) error {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch r.next() {
	case '{':
		return r.object(t)
	case '[':
		return r.array(t)
	case '"':
		_, err := r.text()
		return err
	}
	n := bytes.IndexAny(r.rest, ",]}"+space)
	if n < 0 {
		n = len(r.rest)
	}
	r.rest = r.rest[n:]
	return nil
}

func (r *reader) array(t reflect.Type) error {
	var elem reflect.Type
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		elem = t.Elem()
	}
	r.rest = r.rest[1:]
	r.at = append(r.at, place{})
	for ; r.more(']'); r.at[len(r.at)-1].index++ {
		if err := r.value(elem); err != nil {
			return err
		}
	}
	r.at = r.at[:len(r.at)-1]
	return nil
}

// object reads an object. The keys of a map are data, and differ if their spelling
// does; those of a struct, and of what nobody knows, are names.
func (r *reader) object(t reflect.Type) error {
	var known names
	isMap := t != nil && t.Kind() == reflect.Map
	if t != nil && t.Kind() == reflect.Struct {
		known = namesOf(t)
	}
	seen := map[string]string{}
	r.rest = r.rest[1:]
	r.at = append(r.at, place{index: -1})
	for r.more('}') {
		r.next()
		text, err := r.text()
		if err != nil {
			return err
		}
		key := string(text)
		r.at[len(r.at)-1].key = key
		like := key
		if !isMap {
			like = folded(key)
		}
		if first, twice := seen[like]; twice {
			return fmt.Errorf("%s is there twice, as %q and as %q", r.where(), first, key)
		}
		seen[like] = key
		var field reflect.Type
		switch f, ok := known[like]; {
		case isMap:
			field = t.Elem()
		case ok && f.name != key:
			return fmt.Errorf("%s is spelled %q in the OCI runtime spec", r.where(), f.name)
		case ok:
			field = f.reflect
		}
		r.next()
		r.rest = r.rest[1:] // the colon
		if err := r.value(field); err != nil {
			return err
		}
	}
	r.at = r.at[:len(r.at)-1]
	return nil
}

// text reads a string, which has a NUL only as an escape.
func (r *reader) text() ([]byte, error) {
	n := 1
	for ; r.rest[n] != '"'; n++ {
		if r.rest[n] == '\\' {
			n++
		}
	}
	quoted := r.rest[:n+1]
	r.rest = r.rest[n+1:]
	if !bytes.ContainsRune(quoted, '\\') {
		return quoted[1:n], nil
	}
	var text string
	if err := json.Unmarshal(quoted, &text); err != nil {
		return nil, err
	}
	if strings.ContainsRune(text, 0) {
		return nil, fmt.Errorf("%q in %q has a NUL", text, r.where())
	}
	return []byte(text), nil
}

// names are the fields of a struct by their folded names.
type names map[string]struct {
	name    string
	reflect reflect.Type
}

var namesCache sync.Map // of names, by reflect.Type

func namesOf(t reflect.Type) names {
	if have, ok := namesCache.Load(t); ok {
		return have.(names) //nolint:forcetypeassert // nothing else is stored
	}
	out := names{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || name == "" && f.Anonymous || !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		out[folded(name)] = struct {
			name    string
			reflect reflect.Type
		}{name, f.Type}
	}
	namesCache.Store(t, out)
	return out
}

// folded is the same for all spellings that encoding/json takes for one name
// (encoding/json/fold.go).
func folded(name string) string {
	if ascii(name) {
		return strings.ToUpper(name) // the smallest, as below
	}
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next // the smallest of those that are alike
			}
			r = next
		}
	}, name)
}

func ascii(text string) bool {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// loneSurrogate looks for an escape for half a character, in valid JSON.
func loneSurrogate(data []byte) bool {
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		i++
		if data[i] != 'u' {
			continue
		}
		first := escaped(data[i+1:])
		i += 4
		if !utf16.IsSurrogate(first) {
			continue
		}
		if i+2 >= len(data) || data[i+1] != '\\' || data[i+2] != 'u' || utf16.DecodeRune(first, escaped(data[i+3:])) == unicode.ReplacementChar {
			return true
		}
		i += 6
	}
	return false
}

func escaped(hex []byte) rune {
	n, err := strconv.ParseUint(string(hex[:min(4, len(hex))]), 16, 16)
	if err != nil {
		return 0
	}
	return rune(n)
}
