// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
)

// base is a spec without the closing brace.
const base = `{"ociVersion":"1.2.0","process":{"args":["sh"],"cwd":"/","user":{"uid":0,"gid":0}},"root":{"path":"r"},"annotations":{"a":"1","A":"2"},"linux":{"namespaces":[{"type":"pid"},{"type":"ipc"}],"sysctl":{"x":"1","X":"2"}}`

// TestTwoReadings: with a key twice, or in another spelling, a container ran
// without a user namespace of its own, since the OCI runtime read another one of
// the values than isolate.
func TestTwoReadings(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"another spelling, after":        base + `,"Linux":{}}`,
		"another spelling, before":       `{"Linux":{},` + base[1:] + `}`,
		"twice":                          base + `,"linux":{}}`,
		"one spelling, and wrong":        strings.Replace(base, `"linux"`, `"LINUX"`, 1) + `}`,
		"as an escape":                   base + `,"l\u0069nux":{}}`,
		"long s":                         base + `,"proce\u017fs":{}}`,
		"Kelvin":                         strings.Replace(base, `"linux":{`, `"linux":{"mas\u212aedPaths":[],`, 1) + `}`,
		"inside":                         strings.Replace(base, `"type":"ipc"`, `"type":"ipc","Path":"/x"`, 1) + `}`,
		"of an embedded struct":          strings.Replace(base, `"linux":{`, `"linux":{"resources":{"blockIO":{"weightDevice":[{"Major":1}]}},`, 1) + `}`,
		"twice in a map":                 strings.Replace(base, `"x":"1"`, `"x":"1","x":"2"`, 1) + `}`,
		"twice in what nobody knows":     base + `,"future":{"a":[{"b":1,"b":2}]}}`,
		"spellings in what nobody knows": base + `,"future":{"a":1,"A":1}}`,
		"NUL in a key":                   base + `,"linux\u0000":{}}`,
		"NUL in a value":                 strings.Replace(base, `"pid"`, `"pid","path":"/a\u0000b"`, 1) + `}`,
		"half a character":               strings.Replace(base, `"cwd":"/"`, `"cwd":"/\ud800"`, 1) + `}`,
		"the other half":                 strings.Replace(base, `"cwd":"/"`, `"cwd":"/\\\udc00"`, 1) + `}`,
		"bytes that are no character":    strings.Replace(base, `"cwd":"/"`, "\"cwd\":\"/\xff\"", 1) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(in))
			if !errors.Is(err, ErrRefused) {
				t.Errorf("got %v for %s", err, in)
			}
		})
	}
	for name, in := range map[string]string{
		"plain":         base + `}`,
		"unknown keys":  base + `,"future":{"Linux":{"a":1}}}`,
		"any character": strings.Replace(base, `"cwd":"/"`, `"cwd":"/\ud83d\ude00\ufffd\\ud800"`, 1) + `}`,
	} {
		if _, err := Parse([]byte(in)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := ExecProcess([]byte(`{"args":["sh"],"cwd":"/","user":{"uid":0,"gid":0},"noNewPrivileges":true,"NoNewPrivileges":false}`), &Plan{Mapping: idmap.Contiguous(1, 9)}); !errors.Is(err, ErrRefused) {
		t.Errorf("exec: %v", err)
	}
}

// strictly reads a spec as a program does that knows each key in one spelling and
// takes the first of two.
func strictly(t *testing.T, data []byte) *specs.Spec {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var first func(reflect.Type) any
	first = func(typ reflect.Type) any {
		for typ != nil && typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		token, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		delim, ok := token.(json.Delim)
		if !ok {
			return token
		}
		defer d.Token() //nolint:errcheck // the end
		if delim == '[' {
			out := []any{}
			for d.More() {
				var elem reflect.Type
				if typ != nil && typ.Kind() == reflect.Slice {
					elem = typ.Elem()
				}
				out = append(out, first(elem))
			}
			return out
		}
		out := map[string]any{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				t.Fatal(err)
			}
			name, _, _ := strings.Cut(key.(string), "\x00") //nolint:forcetypeassert // a key
			known := typ != nil && typ.Kind() == reflect.Map
			var elem reflect.Type
			switch {
			case known:
				elem = typ.Elem()
			case typ != nil && typ.Kind() == reflect.Struct:
				for _, f := range reflect.VisibleFields(typ) {
					if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag == name && tag != "" {
						known, elem = true, f.Type
					}
				}
			}
			value := first(elem)
			if _, twice := out[name]; known && !twice {
				out[name] = value
			}
		}
		return out
	}
	plain, err := json.Marshal(first(reflect.TypeOf(specs.Spec{})))
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(plain, &s); err != nil {
		t.Fatalf("%v in %s", err, plain)
	}
	return &s
}

// FuzzOneReading: of a document that is accepted there is one reading, before the
// edits and after them.
func FuzzOneReading(f *testing.F) {
	dirs, err := filepath.Glob("testdata/*/in.json")
	if err != nil || len(dirs) == 0 {
		f.Fatal(dirs, err)
	}
	for _, path := range dirs {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, seed := range []string{
		base + `}`, base + `,"Linux":{}}`, base + `,"future":{"a":1,"A":2}}`, base + `,"linux\u0000":{}}`, base + `,"\u212a":1,"hostname":"\ud800"}`,
		strings.Replace(base, `"linux":{`, `"linux":{"resources":{"blockIO":{"weightDevice":[{"major":1,"weight":null}]},"devices":null},"namespaceS":[],`, 1) + `}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := Parse(data)
		if err != nil {
			return
		}
		same := func(data []byte) {
			want := encode(t, doc.Spec)
			var loose specs.Spec
			if err := json.Unmarshal(data, &loose); err != nil {
				t.Fatal(err)
			}
			strict := strictly(t, data)
			for _, s := range []*specs.Spec{&loose, strict} {
				if s.Linux == nil {
					s.Linux = &specs.Linux{}
				}
			}
			if got := encode(t, &loose); !bytes.Equal(got, want) {
				t.Errorf("encoding/json reads\n%s, not\n%s, in\n%s", got, want, data)
			}
			if got := encode(t, strict); !bytes.Equal(got, want) {
				t.Errorf("a strict reader reads\n%s, not\n%s, in\n%s", got, want, data)
			}
		}
		same(data)
		plan := Plan{Decision: Decision{Mode: ModeOwn, Network: NetworkOwned}, Mapping: idmap.Contiguous(1879048192, 65536), Nesting: &Nesting{}}
		if _, err := Apply(doc.Spec, &plan); err != nil {
			return
		}
		out, err := doc.JSON()
		if err != nil {
			t.Fatal(err)
		}
		same(out)
	})
}

func encode(t *testing.T, s *specs.Spec) []byte {
	t.Helper()
	out, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func BenchmarkParse(b *testing.B) {
	data, err := os.ReadFile("testdata/nest-privileged-systemd/in.json")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}
