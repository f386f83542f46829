// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"errors"
	"os"
	"testing"
)

// TestProbeRemembers: only conclusive answers are kept.
func TestProbeRemembers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		err   error
		calls int
	}{
		{name: "yes", calls: 1},
		{name: "no", err: ErrNotSupported, calls: 1},
		{name: "perhaps", err: os.ErrPermission, calls: 3},
	} {
		calls := 0
		p := &Probe{Name: tc.name, Version: "9.9", Fn: func() error { calls++; return tc.err }}
		for range 3 {
			if err := p.Check(); !errors.Is(err, tc.err) {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
		if calls != tc.calls {
			t.Errorf("%s: asked %d times, want %d", tc.name, calls, tc.calls)
		}
	}
}
