// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"testing"

	"github.com/isolate-shim/isolate/spec"
)

// TestWriteSysctl: what is not below net is never written.
func TestWriteSysctl(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"net/../kernel/core_pattern", "net/../../../etc/passwd", "net", "net/..", "net/../net"} {
		if err := writeSysctl(key, "x"); !errors.Is(err, spec.ErrRefused) {
			t.Errorf("writeSysctl(%q): %v", key, err)
		}
	}
}
