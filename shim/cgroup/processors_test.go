// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"strings"
	"testing"
)

func TestParseQuota(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{"20000 100000": 0.2, "400000 100000": 4, "0 100000": 0} {
		if got, ok := parseQuota(strings.Fields(text)); !ok || got != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"max 100000", "-1 100000", "20000", "", "20000 0", "a b"} {
		if got, ok := parseQuota(strings.Fields(text)); ok {
			t.Errorf("%q: %v", text, got)
		}
	}
}
