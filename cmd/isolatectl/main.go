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
	"strings"

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
	root := &cli.Command{
		Name:  "isolatectl",
		Usage: "see what isolated containers have and what this host can do",
		Description: "The exit status is 0 if all went well, and 3 if the call was wrong or could not be answered. check ends\n" +
			"with 1 if containers run without something and with 2 if they cannot run; gc with 1 if\n" +
			"something is left.",
		Version:   version.String(),
		Writer:    stdout,
		ErrWriter: stderr,
		// Errors and their statuses are run's.
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
		Commands: []*cli.Command{
			apparmorCommand(), checkCommand(), configCommand(), gcCommand(), idsCommand(), installCommand(), uninstallCommand(),
			lxcfsCommand(), manCommand(), metricsCommand(), pauseCommand(), psCommand(), versionCommand(),
		},
		Action:                noCommand,
		EnableShellCompletion: true,
		ConfigureShellCompletionCommand: func(c *cli.Command) {
			c.Hidden, c.Usage = false, "print what makes a shell complete commands and flags: bash, zsh, fish or pwsh"
		},
	}
	refuseFlags(root)
	checkInActions(root)
	return root
}

// refuseFlags makes a command and those below it answer a wrong flag in one sentence.
func refuseFlags(c *cli.Command) {
	c.OnUsageError = func(_ context.Context, c *cli.Command, err error, _ bool) error {
		written, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: ")
		if !ok {
			return fmt.Errorf("%s: %w", path(c), err)
		}
		var names []string
		for _, f := range c.VisibleFlags() {
			names = append(names, "--"+f.Names()[0])
		}
		return fmt.Errorf("%s has no flag %s%s", path(c), written, config.DidYouMean("--"+strings.TrimLeft(written, "-"), names))
	}
	for _, below := range c.Commands {
		refuseFlags(below)
	}
}

// checkInActions moves what is checked before an action into it. The library checks before
// it completes as well, when an argument may be half of a flag and the user is not root yet.
func checkInActions(c *cli.Command) {
	if before, action := c.Before, c.Action; before != nil {
		c.Before = nil
		c.Action = func(ctx context.Context, c *cli.Command) error {
			if _, err := before(ctx, c); err != nil {
				return err
			}
			return action(ctx, c)
		}
	}
	for _, below := range c.Commands {
		checkInActions(below)
	}
}

// noCommand answers a call without a command, and one with a command that does
// not exist.
func noCommand(_ context.Context, c *cli.Command) error {
	if !c.Args().Present() {
		if c.Root() == c {
			return cli.ShowAppHelp(c)
		}
		return cli.ShowSubcommandHelp(c)
	}
	var names []string
	for _, below := range c.VisibleCommands() {
		names = append(names, below.Name)
	}
	return fmt.Errorf("%s has no command %q%s", path(c), c.Args().First(), config.DidYouMean(c.Args().First(), names))
}

// path is what a command is called in a message, which begins with the program's name.
func path(c *cli.Command) string {
	_, below, ok := strings.Cut(c.FullName(), " ")
	if !ok {
		return "it"
	}
	return below
}

// noArguments is for commands that take flags only.
func noArguments(_ context.Context, c *cli.Command) (context.Context, error) {
	if c.Args().Present() {
		return nil, fmt.Errorf("%s takes no argument, not %q", c.Name, c.Args().First())
	}
	return nil, nil
}

// rootOnly is for commands whose answer would be empty for anybody else.
func rootOnly(ctx context.Context, c *cli.Command) (context.Context, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%s: run it as root: the state of containers is root's", path(c))
	}
	return noArguments(ctx, c)
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
