// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// FromSpec returns the mapping an OCI spec carries in linux.uidMappings and
// linux.gidMappings (or a mount in its own), or an error if the kernel would
// refuse it.
func FromSpec(uids, gids []specs.LinuxIDMapping) (Mapping, error) {
	m := Mapping{UIDs: fromSpec(uids), GIDs: fromSpec(gids)}
	return m, m.Valid()
}

func fromSpec(in []specs.LinuxIDMapping) []Range {
	out := make([]Range, len(in))
	for i, r := range in {
		out[i] = Range{Container: ContainerID(r.ContainerID), Host: HostID(r.HostID), Size: r.Size}
	}
	return out
}

// SpecUIDs returns the uid ranges as linux.uidMappings of an OCI spec.
func (m Mapping) SpecUIDs() []specs.LinuxIDMapping { return toSpec(m.UIDs) }

// SpecGIDs returns the gid ranges as linux.gidMappings of an OCI spec.
func (m Mapping) SpecGIDs() []specs.LinuxIDMapping { return toSpec(m.GIDs) }

func toSpec(in []Range) []specs.LinuxIDMapping {
	out := make([]specs.LinuxIDMapping, len(in))
	for i, r := range in {
		out[i] = specs.LinuxIDMapping{ContainerID: uint32(r.Container), HostID: uint32(r.Host), Size: r.Size}
	}
	return out
}

// ParseProcMap parses the content of /proc/PID/uid_map or gid_map
// (user_namespaces(7)). The host column is relative to the user namespace of
// the process that read the file. An empty content, the map of a namespace
// nobody has set up yet, yields no range.
func ParseProcMap(content string) ([]Range, error) {
	var ranges []Range
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("parse id map line %q: want 3 numbers", strings.TrimSpace(line))
		}
		r, err := parseRange(fields)
		if err != nil {
			return nil, fmt.Errorf("parse id map line %q: %w", strings.TrimSpace(line), err)
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

// ParseRanges parses what containerd puts behind uidmap= and gidmap= in
// mount options: container:host:size, comma separated.
func ParseRanges(list string) ([]Range, error) {
	var ranges []Range
	for item := range strings.SplitSeq(list, ",") {
		fields := strings.Split(item, ":")
		if len(fields) != 3 {
			return nil, fmt.Errorf("parse id range %q: want container:host:size", item)
		}
		r, err := parseRange(fields)
		if err != nil {
			return nil, fmt.Errorf("parse id range %q: %w", item, err)
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

func parseRange(fields []string) (Range, error) {
	var n [3]uint32
	for i := range n {
		v, err := strconv.ParseUint(fields[i], 10, 32)
		if err != nil {
			return Range{}, err
		}
		n[i] = uint32(v)
	}
	return Range{Container: ContainerID(n[0]), Host: HostID(n[1]), Size: n[2]}, nil
}
