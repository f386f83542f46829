// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// Command is one program run while something is made.
type Command struct {
	Dir string
	// Env is added to the environment of this process.
	Env []string
	// Log takes stderr, and stdout of Run.
	Log io.Writer
}

// Run runs a program.
func (c Command) Run(ctx context.Context, argv ...string) error {
	command := c.command(ctx, argv)
	command.Stdout = c.Log
	if err := command.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return nil
}

// Output runs a program and returns its stdout.
func (c Command) Output(ctx context.Context, argv ...string) (string, error) {
	command := c.command(ctx, argv)
	var stdout, stderr bytes.Buffer
	command.Stdout = &stdout
	if c.Log == nil {
		command.Stderr = &stderr
	}
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, stderr.Bytes())
	}
	return stdout.String(), nil
}

func (c Command) command(ctx context.Context, argv []string) *exec.Cmd {
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Dir = c.Dir
	command.Env = append(os.Environ(), c.Env...)
	command.Stderr = c.Log
	return command
}
