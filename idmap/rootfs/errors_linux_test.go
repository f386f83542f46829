// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

// TestUnbuildableNamesAKernelOnlyIfItIsNewer: "needs Linux 5.19" on 6.18 sent people
// the wrong way.
func TestUnbuildableNamesAKernelOnlyIfItIsNewer(t *testing.T) {
	t.Parallel()
	for release, needs := range map[string]bool{"5.15.0": true, "6.18.44-fc": false, "unknown": false} {
		got := (&UnbuildableError{Path: "/x", FSType: "ext4", Kernel: release}).Error()
		if !strings.Contains(got, "kernel "+release) || !strings.Contains(got, "ext4") || strings.Contains(got, "needs Linux 5.19") != needs {
			t.Errorf("%q, want a need of 5.19: %v", got, needs)
		}
	}
}

// TestVolatileLayerIsNamed: the kernel mounts one once, and says EINVAL then.
func TestVolatileLayerIsNamed(t *testing.T) {
	t.Parallel()
	forMethods(t, func(t *testing.T, method Method) {
		m := idmap.Contiguous(300000, 65536)
		ns := testmounts.Userns(t, m)
		o := stack(t, testmounts.Dir(t), 2)
		o.Options = append(o.Options, mount.Option{Key: "volatile"})
		testmounts.Close(t, build(t, o, ns, m, method))
		root, _ := m.Root()
		_, err := o.Build(ns, root, MethodAuto)
		if err == nil || !strings.Contains(err.Error(), "mounted with the option volatile") || !strings.Contains(err.Error(), o.Work+"/work/incompat") {
			t.Errorf("got %v", err)
		}
		if unbuildable := (*UnbuildableError)(nil); errors.As(err, &unbuildable) {
			t.Error("the mapping is blamed")
		}
	})
}
