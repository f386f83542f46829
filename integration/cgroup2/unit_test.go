// SPDX-License-Identifier: Apache-2.0

package cgroup2

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// unit looks at the group as systemd has it, and has systemd apply all it knows of
// it anew: who owns the group, and which devices it may open, stays as it was.
func unit(t *testing.T, c *container) {
	// crun puts its containers into a group below the unit's.
	scope := strings.TrimSuffix(c.dir, "/container")
	before := read(t, scope, "pids.max")
	const properties = "--property=ActiveState,ControlGroup,Delegate,MemoryMax,CPUQuotaPerSecUSec"
	show := rig.Exec(t.Context(), "systemctl", "show", properties, "isolate-"+c.id+".scope")
	got := map[string]string{}
	for line := range strings.Lines(show.Must(t)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		got[name] = value
	}
	for name, want := range map[string]string{
		"ActiveState": "active", "ControlGroup": strings.TrimPrefix(scope, root), "Delegate": "yes",
		"MemoryMax": fmt.Sprint(memoryLimit), "CPUQuotaPerSecUSec": "500ms",
	} {
		equal(t, name, got[name], want)
	}
	rig.Exec(t.Context(), "systemctl", "daemon-reload").Must(t)
	// A property of its own makes systemd write all of the unit's.
	rig.Exec(t.Context(), "systemctl", "set-property", "--runtime", "isolate-"+c.id+".scope", "TasksMax=500").Must(t)
	equal(t, "pids.max", read(t, scope, "pids.max"), 500)
	delegation(t, c)
	devices(t, c)
	rig.Exec(t.Context(), "systemctl", "set-property", "--runtime", "isolate-"+c.id+".scope", "TasksMax="+strings.Replace(before, "max", "infinity", 1)).Must(t)
}
