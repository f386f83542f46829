// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestErrorsNameAKernelOnlyIfItIsNewer: "needs Linux 5.19" on 6.18 sent people the
// wrong way.
func TestErrorsNameAKernelOnlyIfItIsNewer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err         error
		needs, says string
	}{
		{&NotIDMappableError{Path: "/x", FSType: "tmpfs", Kernel: "5.15.0-generic"}, "6.3", "tmpfs cannot be id-mapped by kernel 5.15.0-generic"},
		{&NotIDMappableError{Path: "/x", FSType: "tmpfs", Kernel: "6.18.1"}, "", "tmpfs"},
		{&NotIDMappableError{Path: "/x", FSType: "ramfs", Kernel: "5.4.0"}, "", "ramfs"},
		{&UnbuildableError{Path: "/x", FSType: "ext4", Kernel: "5.15.0"}, "5.19", "ext4"},
		{&UnbuildableError{Path: "/x", FSType: "ext4", Kernel: "6.18.44-fc"}, "", "ext4"},
		{&UnbuildableError{Path: "/x", FSType: "ext4", Kernel: "unknown"}, "", "unknown"},
	} {
		got := test.err.Error()
		if !strings.Contains(got, test.says) {
			t.Errorf("%q does not say %q", got, test.says)
		}
		if want := "needs Linux " + test.needs; strings.Contains(got, "needs Linux") != (test.needs != "") || !strings.Contains(got, want) && test.needs != "" {
			t.Errorf("%q, want a need of %q", got, test.needs)
		}
	}
}

// TestVolatileLayerIsNamed: the kernel mounts one once, and says EINVAL then.
func TestVolatileLayerIsNamed(t *testing.T) {
	t.Parallel()
	forMethods(t, func(t *testing.T, method Method) {
		m := Contiguous(300000, 65536)
		ns := userns(t, m)
		o := stack(t, workDir(t), 2)
		o.Options = append(o.Options, Option{Key: "volatile"})
		shut(t, build(t, o, ns, m, method))
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

// TestInUserNamespace: whoever runs isolate in a container is told so.
func TestInUserNamespace(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	run(t, helper(t, Contiguous(300000, 65536), "nested"))
}

func nested([]string) error {
	if _, err := NewUserns(probeRange); !errors.Is(err, ErrInUserNamespace) {
		return fmt.Errorf("new user namespace: %w", err)
	}
	ns, err := NewUserns(Contiguous(1, 1000))
	if err != nil {
		return err
	}
	defer ns.Close()
	if _, err := CloneTree(-1, "/", CloneOptions{Userns: ns, Recursive: true}); !errors.Is(err, ErrInUserNamespace) && !errors.Is(err, ErrNotIDMappable) {
		return fmt.Errorf("clone: %w", err)
	}
	return nil
}
