// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"slices"
	"testing"

	"github.com/isolate-shim/isolate/integration/cache"
)

func TestDefaultPeersAreRegistered(t *testing.T) {
	t.Parallel()
	for _, name := range Default {
		if !slices.Contains(cache.Names(), string(name)) {
			t.Errorf("peer %q has no recipe", name)
		}
	}
}

func TestInterpreter(t *testing.T) {
	t.Parallel()
	if got, err := interpreter("/bin/sh"); err != nil || got == "" || got[0] != '/' {
		t.Errorf("interpreter of /bin/sh is %q, %v", got, err)
	}
	if got, err := interpreter("/etc/passwd"); err == nil {
		t.Errorf("interpreter of a text is %q, want an error", got)
	}
}
