// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/isolate-shim/isolate/shim/apparmor"
)

// apparmorCommand is for hosts on which nothing else loads the profile, and for
// after the parser was upgraded.
func apparmorCommand() *cli.Command {
	plain := func(act func(context.Context) error) cli.ActionFunc {
		return func(ctx context.Context, _ *cli.Command) error { return act(ctx) }
	}
	return &cli.Command{
		Name:  "apparmor",
		Usage: "load, unload or print the AppArmor profile of containers, " + apparmor.Name,
		Commands: []*cli.Command{
			{
				Name: "load", Usage: "write it to " + apparmor.File + " and load it",
				Before: noArguments, Action: plain(apparmor.Load),
			},
			{
				Name: "unload", Usage: "remove it; containers that run under it keep it until the host boots",
				Before: noArguments, Action: plain(apparmor.Unload),
			},
			{
				Name: "print", Usage: "print it as this host's parser understands it",
				Before: noArguments,
				Action: func(ctx context.Context, c *cli.Command) error {
					text, err := apparmor.Text(ctx)
					if err != nil {
						return err
					}
					_, err = fmt.Fprint(c.Root().Writer, text)
					return err
				},
			},
		},
		Action: noCommand,
	}
}
