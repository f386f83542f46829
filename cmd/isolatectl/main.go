// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/cmd/isolatectl/check"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/version"
)

func main() {
	lxcfs.MaybeChild()
	check.MaybeChild()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// usage is the exit status of a call that is not understood, or could not be
// answered. It differs from the codes of check.
const usage = 3

// exit is the status that a command ends with, without a message.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// run is main for tests.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := command(stdout, stderr).Run(ctx, args)
	var code exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	_, _ = fmt.Fprintf(stderr, "isolatectl: %v\n", err) // nowhere else to say it
	return usage
}

func command(stdout, stderr io.Writer) *cli.Command {
	return &cli.Command{
		Name:      "isolatectl",
		Usage:     "see what isolated containers have and what this host can do",
		Version:   version.String(),
		Writer:    stdout,
		ErrWriter: stderr,
		// Errors and their statuses are run's.
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
		Commands: []*cli.Command{
			apparmorCommand(), checkCommand(), configCommand(), idsCommand(), installCommand(), uninstallCommand(),
			lxcfsCommand(), pauseCommand(), psCommand(),
		},
		Action: noCommand,
	}
}

// noCommand answers a call without a command, and one with a command that does
// not exist.
func noCommand(_ context.Context, c *cli.Command) error {
	if c.Args().Present() {
		return fmt.Errorf("no command %q; isolatectl help lists them", c.Args().First())
	}
	return cli.ShowAppHelp(c)
}

// noArguments is for commands that take flags only.
func noArguments(_ context.Context, c *cli.Command) (context.Context, error) {
	if c.Args().Present() {
		return nil, fmt.Errorf("%s takes no argument, not %q", c.Name, c.Args().First())
	}
	return nil, nil
}

// flags are those that every command has. Each call makes new ones: flags keep
// their values.
func flags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		&cli.StringFlag{Name: "config-dir", Usage: "the host's configuration", Value: config.Dir},
	}
}

// printJSON prints one indented document.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
