// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/urfave/cli/v3"

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
	return report.WriteText(w)
}
