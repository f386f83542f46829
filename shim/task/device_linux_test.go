// SPDX-License-Identifier: Apache-2.0

package task

import (
	"slices"
	"testing"

	"github.com/isolate-shim/isolate/shim/stage"
	"github.com/isolate-shim/isolate/spec"
)

func TestBoundNodes(t *testing.T) {
	t.Parallel()
	null, memory := spec.Node{Type: "c", Major: 1, Minor: 3}, spec.Node{Type: "c", Major: 1, Minor: -1}
	for _, tt := range []struct {
		name, source, dev string
		want              []spec.Node
		more              bool
	}{
		{"a device", "/dev/null", "/dev", []spec.Node{null}, false},
		{"a device elsewhere", "/dev/null", "/nowhere", []spec.Node{null}, false},
		{"the host's", "/dev", "/dev", []spec.Node{memory}, true},
		{"a directory elsewhere", "/dev", "/nowhere", nil, false},
		{"a directory beside it", "/devil", "/dev", nil, false},
		{"a file", "/etc/passwd", "/dev", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := boundNodes(t.Context(), &stage.Sources{}, tt.source, tt.dev)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range tt.want {
				if !slices.Contains(got, n) {
					t.Errorf("%v is not among %v", n, got)
				}
			}
			if !tt.more && len(got) != len(tt.want) {
				t.Errorf("got %v", got)
			}
		})
	}
	if !within("/dev/bus/usb", "/dev") || within("/devil", "/dev") || within("/dev/..", "/dev") {
		t.Error("within")
	}
}
