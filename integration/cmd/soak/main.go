// SPDX-License-Identifier: Apache-2.0

// Command soak lives through containers with random faults beside a containerd of its
// own and counts what is left of them; see package soak. It exits with 1 if something
// is wrong with the shim.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/integration/soak"
)

func main() {
	var opts soak.Options
	flag.Uint64Var(&opts.Seed, "seed", 1, "what all lives follow from")
	flag.IntVar(&opts.From, "from", 0, "the number of the first life")
	flag.IntVar(&opts.N, "n", 100, "how many lives")
	flag.IntVar(&opts.AtOnce, "at-once", 4, "how many of them at once, 64 at most")
	flag.BoolVar(&opts.Peer, "peer", false, "use containerd's own shim")
	flag.StringVar(&opts.Log, "log", "", "a `file` for what containerd and the shims say")
	flag.BoolVar(&opts.Verbose, "v", false, "print each life")
	flag.Parse()
	if opts.N < 1 || opts.From < 0 || opts.AtOnce < 1 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	os.Exit(rig.Enter(func() int {
		report, err := soak.Live(context.Background(), opts, os.Stdout)
		if report != nil {
			report.Write(os.Stdout)
		}
		switch {
		case err != nil:
			fmt.Fprintln(os.Stderr, "soak:", err)
			return 1
		case !report.Clean() && !opts.Peer:
			fmt.Printf("\nOne of the lives again: make soak SEED=%d FROM=its number N=1\n", opts.Seed)
			return 1
		}
		return 0
	}))
}
