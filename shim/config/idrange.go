// SPDX-License-Identifier: Apache-2.0

package config

import "github.com/isolate-shim/isolate/idmap"

// IDRange is a span of host ids, written as the string "first-last" in JSON and TOML.
type IDRange struct{ idmap.Span }

// MarshalText is [idmap.Span.String].
func (r IDRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is [idmap.ParseSpan].
func (r *IDRange) UnmarshalText(text []byte) (err error) {
	r.Span, err = idmap.ParseSpan(string(text))
	return err
}

// Spans is the pool as package pool takes it.
func (i IDs) Spans() []idmap.Span {
	spans := make([]idmap.Span, len(i.Pool))
	for n, r := range i.Pool {
		spans[n] = r.Span
	}
	return spans
}
