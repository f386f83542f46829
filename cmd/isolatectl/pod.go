// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/isolate-shim/isolate/shim/lxcfs"
)

// pauseCommand is what the installer's pods do when they have installed.
func pauseCommand() *cli.Command {
	return &cli.Command{
		Name:   "pause",
		Usage:  "wait for a signal, in a pod whose work is done",
		Hidden: true,
		Before: noArguments,
		Action: func(ctx context.Context, _ *cli.Command) error {
			<-ctx.Done()
			return nil
		},
	}
}

func lxcfsCommand() *cli.Command {
	return &cli.Command{
		Name:      "lxcfs",
		Usage:     "run lxcfs, after removing what a dead one has left",
		ArgsUsage: "DIRECTORY",
		Description: "Runs lxcfs in the foreground, with load averages and CPU quotas, and its files below DIRECTORY. A mount of\n" +
			"lxcfs that is there already is detached first: after a crash it fails whoever looks at it.",
		Flags: []cli.Flag{&cli.StringFlag{Name: "program", Usage: "which lxcfs to run", Value: "lxcfs"}},
		Action: func(_ context.Context, c *cli.Command) error {
			dir := c.Args().First()
			if c.NArg() != 1 || !filepath.IsAbs(dir) {
				return fmt.Errorf("lxcfs takes one absolute directory, not %q", strings.Join(c.Args().Slice(), " "))
			}
			return lxcfs.Exec(c.String("program"), filepath.Clean(dir))
		},
	}
}
