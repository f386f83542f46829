// SPDX-License-Identifier: Apache-2.0

// Command peers gets what the integration tests run against, so that they find
// it ready: the named peers and images, or all that the tests need.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/cache"
	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	_ "github.com/isolate-shim/isolate/integration/rig" // the project's own programs
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	names := os.Args[1:]
	if slices.ContainsFunc(names, func(name string) bool { return name[0] == '-' }) {
		fmt.Fprintf(os.Stderr, "usage: peers [NAME...]\nnames: %q\n", cache.Names())
		os.Exit(2)
	}
	if len(names) == 0 {
		for _, name := range peer.Default {
			names = append(names, string(name))
		}
		for _, name := range image.Default {
			names = append(names, string(name))
		}
	}
	for _, name := range names {
		if _, err := cache.Get(ctx, name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
