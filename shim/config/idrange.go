// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/pool"
)

// IDRange is a range of host user and group ids, both ends included.
type IDRange struct {
	First, Last idmap.HostID
}

// maxHostID is the largest id a container can have: devpts and other kernel code
// read ids as signed numbers of 32 bits.
const maxHostID = 1<<31 - 1

// ParseIDRange reads "first-last", two decimal host ids with first <= last.
func ParseIDRange(text string) (IDRange, error) {
	a, b, ok := strings.Cut(text, "-")
	if !ok {
		return IDRange{}, fmt.Errorf("id range %q: want \"first-last\", as in \"1879048192-2147352575\"", text)
	}
	first, err := parseHostID(a)
	if err != nil {
		return IDRange{}, fmt.Errorf("id range %q: first id: %w", text, err)
	}
	last, err := parseHostID(b)
	if err != nil {
		return IDRange{}, fmt.Errorf("id range %q: last id: %w", text, err)
	}
	if first > last {
		return IDRange{}, fmt.Errorf("id range %q: the first id is larger than the last one", text)
	}
	return IDRange{First: first, Last: last}, nil
}

func parseHostID(text string) (idmap.HostID, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a decimal number", text)
	}
	if n > maxHostID {
		return 0, fmt.Errorf("%d is above the largest id, %d", n, uint32(maxHostID))
	}
	return idmap.HostID(n), nil
}

// String is the form [ParseIDRange] reads.
func (r IDRange) String() string {
	return strconv.FormatUint(uint64(r.First), 10) + "-" + strconv.FormatUint(uint64(r.Last), 10)
}

// MarshalText makes a range a string in JSON and TOML.
func (r IDRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is [ParseIDRange] for decoders.
func (r *IDRange) UnmarshalText(text []byte) error {
	parsed, err := ParseIDRange(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

// Slots is how many aligned ranges of size ids lie inside r: ids of a container
// start at a multiple of [SizeUnit], so the edges of r may stay unused.
func (r IDRange) Slots(size uint32) int {
	if size == 0 {
		return 0
	}
	first := (uint64(r.First) + SizeUnit - 1) / SizeUnit * SizeUnit
	end := uint64(r.Last) + 1
	if end <= first {
		return 0
	}
	return int((end - first) / uint64(size))
}

// Span is r as package pool takes it.
func (r IDRange) Span() pool.Span {
	return pool.Span{First: r.First, Count: uint32(r.Last-r.First) + 1}
}

// Spans is the pool as package pool takes it.
func (i IDs) Spans() []pool.Span {
	spans := make([]pool.Span, len(i.Pool))
	for n, r := range i.Pool {
		spans[n] = r.Span()
	}
	return spans
}
