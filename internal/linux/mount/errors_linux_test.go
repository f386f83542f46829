// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/userns"
	"github.com/isolate-shim/isolate/internal/testmounts"
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

// TestInUserNamespace: whoever runs isolate in a container is told so.
func TestInUserNamespace(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	testmounts.RunProgram(t, testmounts.Program(t, idmap.Contiguous(300000, 65536), "nested"))
}

func nested([]string) error {
	if _, err := userns.New(idmap.Contiguous(0x70000000, 65536)); !errors.Is(err, userns.ErrInside) {
		return fmt.Errorf("new user namespace: %w", err)
	}
	ns, err := userns.New(idmap.Contiguous(1, 1000))
	if err != nil {
		return err
	}
	defer ns.Close()
	if _, err := CloneTree(-1, "/", CloneOptions{Userns: ns, Recursive: true}); !errors.Is(err, userns.ErrInside) && !errors.Is(err, ErrNotIDMappable) {
		return fmt.Errorf("clone: %w", err)
	}
	return nil
}
