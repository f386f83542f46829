// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v3"
)

// manCommand is how packages get the manual page, which thus says what the program
// says.
func manCommand() *cli.Command {
	return &cli.Command{
		Name:   "man",
		Usage:  "print the manual page, for man(1)",
		Before: noArguments,
		Action: func(_ context.Context, c *cli.Command) error { return writeMan(c.Root().Writer, c.Root()) },
	}
}

// writeMan writes a page of man(7).
func writeMan(w io.Writer, root *cli.Command) error {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 8\n.SH NAME\n%s \\- %s\n", strings.ToUpper(root.Name), roff(root.Name), roff(root.Usage))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n.I COMMAND\n[\\fIFLAGS\\fR]\n", roff(root.Name))
	b.WriteString(".SH COMMANDS\n")
	manCommands(&b, "", root.VisibleCommands())
	fmt.Fprintf(&b, ".SH EXIT STATUS\n%s\n", roff(root.Description))
	b.WriteString(".SH FILES\n.TP\n.I /etc/isolate/config.toml\nthe configuration; config prints what is in effect, and with \\-\\-describe what it means\n" +
		".TP\n.I /run/isolate\nthe state of containers\n.SH SEE ALSO\n.BR containerd (8),\n.BR lxcfs (1)\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// manCommands describes commands whose names begin with prefix, and those below them.
func manCommands(b *strings.Builder, prefix string, commands []*cli.Command) {
	for _, c := range commands {
		name := prefix + c.Name
		if below := c.VisibleCommands(); len(below) > 0 {
			manCommands(b, name+" ", below)
			continue
		}
		fmt.Fprintf(b, ".SS \"%s\"\n%s.\n", strings.TrimSpace(roff(name)+" "+roff(c.ArgsUsage)), roff(c.Usage))
		if c.Description != "" {
			fmt.Fprintf(b, ".PP\n%s\n", roff(c.Description))
		}
		for _, f := range c.VisibleFlags() {
			if f.Names()[0] != "help" {
				fmt.Fprintf(b, ".TP\n%s\n", manFlag(f))
			}
		}
	}
}

// manFlag is what the help says of a flag: names, a tab and what it does.
func manFlag(f cli.Flag) string {
	names, does, _ := strings.Cut(f.String(), "\t")
	return ".B " + roff(strings.TrimSpace(names)) + "\n" + roff(strings.TrimSpace(does))
}

// roff quotes text: a dash would become a hyphen, and a dot or an apostrophe at the
// beginning of a line a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
