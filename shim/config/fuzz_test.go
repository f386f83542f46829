// SPDX-License-Identifier: Apache-2.0

package config

import (
	"reflect"
	"strings"
	"testing"
)

func FuzzOverlay(f *testing.F) {
	for _, c := range changed {
		f.Add([]byte(c.toml))
	}
	f.Add([]byte("BinaryName = \"x\"\nRoot=\"/r\"\n[lxcfs]\nmode='off'"))
	f.Add([]byte("lxcfs = {mode = \"off\", nested = false}"))
	f.Add([]byte("a.b.c = [[[{x=1}]]]"))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, origins, err := Default().apply("body", body, true)
		if err == nil {
			err = c.verify("body", origins)
		}
		if err != nil {
			if !strings.Contains(err.Error(), "body") {
				t.Errorf("the error does not name the document: %v", err)
			}
			return
		}
		if p := c.problems(); len(p) > 0 {
			t.Errorf("accepted with problems: %v", p)
		}
		// What is not mentioned has kept its default; what is, has an origin.
		for _, k := range Keys() {
			_, set := origins[k.Name]
			if !set && !reflect.DeepEqual(k.Get(c), k.Get(Default())) {
				t.Errorf("%s changed to %v without an origin", k.Name, k.Get(c))
			}
		}
	})
}

func FuzzWithAnnotations(f *testing.F) {
	f.Add("size", "65536", true)
	f.Add("lxcfs", "off", false)
	f.Add("", "", true)
	f.Fuzz(func(t *testing.T, short, value string, allowed bool) {
		c := Default()
		if allowed {
			c.Annotations.Allow = annotationNames()
		}
		got, err := c.WithAnnotations(map[string]string{AnnotationPrefix + short: value})
		if err == nil && !allowed {
			t.Fatalf("%q=%q taken without being allowed", short, value)
		}
		if err == nil && len(got.problems()) > 0 {
			t.Errorf("accepted with problems: %v", got.problems())
		}
	})
}
