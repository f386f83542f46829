// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/urfave/cli/v3"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/cmd/isolatectl/orphan"
	"github.com/isolate-shim/isolate/shim/record"
)

func gcCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "print, or remove, the state of containers that nobody will remove any more",
		Description: "Such state is left if containerd's own was removed by hand, or if both clean-ups of a container were\n" +
			"killed. Only what is proved dead is removed: containerd does not know the container, no shim holds its\n" +
			"ids, and none of its processes lives. Temporary files of shims that were killed are found too; the next\n" +
			"clean-up of any container would remove them. The exit status is 1 if something was found and is still there.",
		Flags:  append(flags(), &cli.BoolFlag{Name: "delete", Usage: "remove it; without this flag nothing is changed"}),
		Before: rootOnly,
		Action: func(ctx context.Context, c *cli.Command) error {
			found, err := orphans(ctx, c.String("config-dir"), c.Bool("delete"))
			w := c.Root().Writer
			write := func() error { return writeOrphans(w, found) }
			if c.Bool("json") {
				write = func() error { return printJSON(w, found) }
			}
			if err := errors.Join(write(), err); err != nil {
				return err
			}
			for _, o := range found {
				if !o.Removed {
					return exit(1)
				}
			}
			return nil
		},
	}
}

// errNoDaemon means that it cannot be told what containerd knows, nor in which pid
// namespace containers are.
var errNoDaemon = errors.New("neither containerd nor Docker runs in this pid namespace, so that nothing can be proved dead: run this on the host, while one of them runs")

// orphans looks for state that is left, and removes it.
func orphans(ctx context.Context, configDir string, remove bool) ([]orphan.Orphan, error) {
	if len(host.Find("/proc", "containerd", "dockerd")) == 0 {
		return []orphan.Orphan{}, errNoDaemon
	}
	p, err := openPool(configDir, record.IDs())
	if err != nil || p == nil {
		return []orphan.Orphan{}, err
	}
	ids, err := p.List(ctx)
	if err != nil {
		return []orphan.Orphan{}, err
	}
	return orphan.Collector{IDs: ids, Remove: remove}.Run(ctx)
}

func writeOrphans(w io.Writer, found []orphan.Orphan) error {
	// A tabwriter keeps the first error for Flush.
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(format string, args ...any) { _, _ = fmt.Fprintf(t, format, args...) }
	if len(found) == 0 {
		row("nothing is left of any container that containerd does not know\n")
		return t.Flush()
	}
	row("NAMESPACE\tCONTAINER\tSTATE\n")
	for _, o := range found {
		state := "left; --delete removes it"
		switch {
		case o.Removed:
			state = "removed"
		case o.Kept != "":
			state = "kept: " + o.Kept
		}
		if o.Files != "" { // they do not tell whose they were
			row("-\t%s\t%s\n", o.Files, state)
			continue
		}
		row("%s\t%s\t%s\n", o.Namespace, short(o.ID), state)
	}
	return t.Flush()
}
