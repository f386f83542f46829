// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go/features"
)

func TestTimeNamespaces(t *testing.T) {
	t.Parallel()
	says := &features.Features{Linux: &features.Linux{Namespaces: []string{"pid", "time"}}}
	for _, c := range []struct {
		b    Binary
		want bool
	}{
		{Binary{Name: Crun, Version: "1.21", Features: &features.Features{Linux: &features.Linux{}}}, true},
		{Binary{Name: Crun, Version: "1.8.1"}, true},
		{Binary{Name: Runc, Version: "1.5.2", Features: says}, true},
		{Binary{Name: Runc, Version: "1.1.5", Features: &features.Features{Linux: &features.Linux{}}}, false},
		{Binary{Name: Other, Features: says}, true},
	} {
		if got := c.b.TimeNamespaces(); got != c.want {
			t.Errorf("%+v: %v", c.b, got)
		}
	}
}

func TestOneUserns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		b    Binary
		want bool
	}{
		{Binary{Name: Runc, Version: "1.1.5+ds1"}, true},
		{Binary{Name: Runc, Version: "1.2.9"}, true},
		{Binary{Name: Runc, Version: "1.3.0"}, false},
		{Binary{Name: Runc, Version: "1.5.2"}, false},
		{Binary{Name: Runc}, true},
		{Binary{Name: Crun, Version: "1.8.1"}, false},
		{Binary{Name: Other}, false},
	} {
		if got := c.b.OneUserns(); got != c.want {
			t.Errorf("%+v: %v", c.b, got)
		}
	}
}
