// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"bytes"
	"encoding/json"
	"errors"
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
	r := reader{json.NewDecoder(bytes.NewReader(data))}
	r.UseNumber()
	if err := r.value(reflect.TypeOf(v), nil); err != nil {
		return fmt.Errorf("programs read it in different ways: %w: %w", err, ErrRefused)
	}
	return nil
}

type reader struct{ *json.Decoder }

// value reads a value that goes into a Go type; nil if nobody knows which. at has
// the keys that lead to it.
func (r reader) value(t reflect.Type, at []string) error {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	token, err := r.Token()
	if err != nil {
		return err
	}
	switch token := token.(type) {
	case string:
		return noNUL(token, at)
	case json.Delim:
		if token == '{' {
			err = r.object(t, at)
		} else {
			err = r.array(t, at)
		}
		if err != nil {
			return err
		}
		_, err = r.Token() // the end
		return err
	}
	return nil
}

func (r reader) array(t reflect.Type, at []string) error {
	var elem reflect.Type
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		elem = t.Elem()
	}
	for i := 0; r.More(); i++ {
		if err := r.value(elem, append(at, strconv.Itoa(i))); err != nil {
			return err
		}
	}
	return nil
}

// object reads an object. The keys of a map are data, and differ if their spelling
// does; those of a struct, and of what nobody knows, are names.
func (r reader) object(t reflect.Type, at []string) error {
	var known names
	isMap := t != nil && t.Kind() == reflect.Map
	if t != nil && t.Kind() == reflect.Struct {
		known = namesOf(t)
	}
	seen := map[string]string{}
	for r.More() {
		token, err := r.Token()
		if err != nil {
			return err
		}
		key, ok := token.(string)
		if !ok {
			return errors.New("a key is not a string")
		}
		here := append(at, key)
		if err := noNUL(key, here); err != nil {
			return err
		}
		like := key
		if !isMap {
			like = folded(key)
		}
		if first, twice := seen[like]; twice {
			return fmt.Errorf("%s is there twice, as %q and as %q", strings.Join(here, "."), first, key)
		}
		seen[like] = key
		var field reflect.Type
		switch f, ok := known[like]; {
		case isMap:
			field = t.Elem()
		case ok && f.name != key:
			return fmt.Errorf("%s is spelled %q in the OCI runtime spec", strings.Join(here, "."), f.name)
		case ok:
			field = f.reflect
		}
		if err := r.value(field, here); err != nil {
			return err
		}
	}
	return nil
}

func noNUL(text string, at []string) error {
	if strings.ContainsRune(text, 0) {
		return fmt.Errorf("%q has a NUL", strings.Join(at, "."))
	}
	return nil
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
