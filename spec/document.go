// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Document is one config.json of a bundle.
//
// Spec is the copy to edit. Fields that it does not know survive in the
// original bytes: JSON writes back only what changed.
type Document struct {
	Spec *specs.Spec

	raw    []byte // as containerd wrote it
	before []byte // raw as this version of runtime-spec understands it
}

// Parse reads a config.json. It fails for anything that is not a Linux OCI
// runtime spec with a process and a root, since every client sends both.
func Parse(data []byte) (*Document, error) {
	s, err := decode(data)
	if err != nil {
		return nil, err
	}
	before, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode spec: %w", err)
	}
	return &Document{Spec: s, raw: data, before: before}, nil
}

func decode(data []byte) (*specs.Spec, error) {
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("decode spec: %w", err)
	}
	if err := oneReading(data, &s); err != nil {
		return nil, fmt.Errorf("decode spec: %w", err)
	}
	switch {
	case s.Process == nil:
		return nil, errors.New("spec has no process")
	case s.Root == nil:
		return nil, errors.New("spec has no root")
	case s.Windows != nil || s.VM != nil:
		return nil, errors.New("spec is not for Linux containers")
	}
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	return &s, nil
}

// JSON returns the original bytes with the edits of Spec merged in. Without an
// edit it returns the original, byte for byte.
func (d *Document) JSON() ([]byte, error) { return merge(d.raw, d.before, d.Spec) }

// merge brings what changed from before to v into raw.
func merge(raw, before []byte, v any) ([]byte, error) {
	after, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	if bytes.Equal(raw, before) {
		return after, nil // the usual case: nothing in raw is unknown
	}
	patch, err := jsonpatch.CreateMergePatch(before, after)
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	if string(patch) == "{}" {
		return raw, nil
	}
	out, err := jsonpatch.MergePatch(raw, patch)
	if err != nil {
		return nil, fmt.Errorf("merge: %w", err)
	}
	return out, nil
}
