// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/urfave/cli/v3"

	"github.com/isolate-shim/isolate/shim/version"
)

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:   "version",
		Usage:  "print the version",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Before: noArguments,
		Action: func(_ context.Context, c *cli.Command) error {
			w := c.Root().Writer
			if !c.Bool("json") {
				_, err := fmt.Fprintln(w, version.String())
				return err
			}
			return printJSON(w, struct {
				Version  string `json:"version"`
				Revision string `json:"revision"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{version.Version, version.Revision, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH})
		},
	}
}
