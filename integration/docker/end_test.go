// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/attacker"
	"github.com/isolate-shim/isolate/integration/rig"
)

// doesNotEnd removes containers whose first process waits for a FUSE server that it is
// itself, so that SIGKILL alone does not end it; package escape has more of them.
func doesNotEnd(t *testing.T, d *daemon) {
	inside, err := attacker.Program(t.Context(), attacker.Inside)
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"fuse-own", "fuse-hidden"} {
		c := d.start(t, []string{"-v", inside + ":/inside:ro"}, "/inside", "end", state)
		rig.Eventually(t, state, func() bool { return strings.Contains(d.docker(t, "logs", c), `"ready/`+state+`"`) })
		pid := d.pid(t, c)
		started := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		d.Run(ctx, "rm", "--force", c).Must(t)
		t.Logf("%s: process %s was removed after %v", state, pid, time.Since(started).Round(time.Millisecond))
	}
}
