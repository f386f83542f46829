// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// openFiles is the hard limit of open files that inner daemons raise theirs to
// (dockerd, kubelet); raising it inside needs CAP_SYS_RESOURCE of the initial
// user namespace.
const openFiles = 1 << 20

const rlimitNofile = "RLIMIT_NOFILE"

// defaultFiles is the limit that containerd puts into every spec, so that it says
// nothing of what the caller wants (pkg/oci, populateDefaultUnixSpec).
const defaultFiles = 1024

// rlimits raises the hard limit of open files, unless the caller wants another
// one, and cuts every limit to what the host can grant: a runtime without
// CAP_SYS_RESOURCE fails the container for a limit above its own.
func rlimits(proc *specs.Process, n *Nesting) []string {
	i := slices.IndexFunc(proc.Rlimits, func(r specs.POSIXRlimit) bool { return r.Type == rlimitNofile })
	if i < 0 {
		proc.Rlimits = append(proc.Rlimits, specs.POSIXRlimit{Type: rlimitNofile, Soft: defaultFiles, Hard: defaultFiles})
		i = len(proc.Rlimits) - 1
	}
	want := uint64(openFiles)
	if limit, ok := n.Limits[rlimitNofile]; ok {
		want = min(want, limit)
	}
	if l := &proc.Rlimits[i]; l.Hard == defaultFiles && l.Soft == defaultFiles {
		l.Hard = max(l.Hard, want)
	}

	var warnings []string
	for i := range proc.Rlimits {
		r := &proc.Rlimits[i]
		limit, ok := n.Limits[r.Type]
		if !ok || r.Hard <= limit {
			continue
		}
		cause := "containerd runs without CAP_SYS_RESOURCE"
		if r.Type == rlimitNofile {
			cause += ", or fs.nr_open is low"
		}
		warnings = append(warnings, fmt.Sprintf("%s was cut from %d to %d, the most this host grants (%s)", r.Type, r.Hard, limit, cause))
		r.Hard = limit
		r.Soft = min(r.Soft, limit)
	}
	return warnings
}

// TakeLimits takes the resource limits out of a process in JSON, and returns it
// without them: those that the runtime cannot set.
func TakeLimits(process []byte) ([]byte, []specs.POSIXRlimit, error) {
	var proc specs.Process
	if err := json.Unmarshal(process, &proc); err != nil {
		return nil, nil, fmt.Errorf("decode process: %w", err)
	}
	before, err := json.Marshal(&proc)
	if err != nil {
		return nil, nil, fmt.Errorf("encode process: %w", err)
	}
	limits := proc.Rlimits
	proc.Rlimits = nil
	out, err := merge(process, before, &proc)
	return out, limits, err
}
