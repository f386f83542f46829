// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"os"

	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/cmd/isolatectl/check"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "try what containers need of this host",
		Description: "Tries kernel, file systems, id ranges, containerd, OCI runtimes, lxcfs and cgroups, and changes nothing.\n" +
			"The exit status is 0 if all is well, 1 if containers run without something, 2 if they cannot run.",
		Flags:  flags(),
		Before: noArguments,
		Action: func(ctx context.Context, c *cli.Command) error {
			report := check.Run(ctx, c.String("config-dir"))
			if err := printReport(c, report); err != nil {
				return err
			}
			if code := report.ExitCode(); code != 0 {
				return exit(code)
			}
			return nil
		},
	}
}

func printReport(c *cli.Command, report check.Report) error {
	w := c.Root().Writer
	if c.Bool("json") {
		return printJSON(w, struct {
			Result check.Result `json:"result"`
			check.Report
		}{report.Result(), report})
	}
	return report.WriteText(w, styleOf(w))
}

// styleOf is how to write for a human: broken into lines and coloured on a terminal.
func styleOf(w io.Writer) check.Style {
	f, ok := w.(*os.File)
	if !ok {
		return check.Style{}
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil { // no terminal
		return check.Style{}
	}
	width := int(size.Col)
	if width == 0 { // a serial line does not know
		width = 80
	}
	return check.Style{Width: width, Color: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}
