// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/pkg/shim"

	"github.com/isolate-shim/isolate/shim/heal"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/version"
)

// Main is the whole program of the shim. The long-running side is in the
// plugins that the program links in (package task).
func Main() {
	lxcfs.MaybeChild()
	heal.MaybeChild()
	if slices.Contains(os.Args[1:], "-v") || slices.Contains(os.Args[1:], "-version") {
		fmt.Println(version.String())
		return
	}
	ctx, m := context.Background(), newManager()
	if done, err := legacyStart(ctx, m, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s", runtimeName, err)
		os.Exit(1)
	} else if done {
		return
	}
	shim.RunShim(ctx, m)
}
