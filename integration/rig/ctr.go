// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
)

// Result is what became of a command.
type Result struct {
	Argv           []string
	Stdout, Stderr string
	Code           int // exit status; -1 if it was not started, or killed
	cause          error
}

// Err is nil if the command has exited with 0, and otherwise tells all about it.
func (r Result) Err() error {
	if r.cause == nil {
		return nil
	}
	return fmt.Errorf("%s: %w\n%s%s", strings.Join(r.Argv, " "), r.cause, r.Stdout, r.Stderr)
}

// Must fails the test unless the command has exited with 0, and returns its
// stdout without the last newline.
func (r Result) Must(t testing.TB) string {
	t.Helper()
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(r.Stdout, "\n")
}

// commandTimeout bounds every command, so that a hang is a failure with a
// message.
const commandTimeout = 2 * time.Minute

// Exec runs a command.
func Exec(ctx context.Context, argv ...string) Result {
	ctx, cancel := context.WithTimeout(ctx, Patiently(commandTimeout))
	defer cancel()
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Stdout, command.Stderr = &stdout, &stderr
	// Something that the command has left behind may hold the pipes open.
	command.WaitDelay = time.Second
	err := command.Run()
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(err, cause)
	}
	r := Result{Argv: argv, Stdout: stdout.String(), Stderr: stderr.String(), Code: -1, cause: err}
	if command.ProcessState != nil {
		r.Code = command.ProcessState.ExitCode()
	}
	return r
}

// Ctr runs ctr against this containerd.
func (n *Node) Ctr(ctx context.Context, args ...string) Result {
	return Exec(ctx, slices.Concat([]string{n.ctr, "--address", n.Address}, args)...)
}

// Output runs a command of ctr that starts a process, such as "tasks exec". The
// result's Stdout is what the process printed, to whichever stream. It goes through a
// file, because ctr loses the output of a process that ends before ctr has opened its
// pipes (client/task.go, Task.Delete, cancels that), which happens on busy machines,
// with any shim.
func (n *Node) Output(t testing.TB, command string, args ...string) Result {
	t.Helper()
	dir, err := os.MkdirTemp("", "o")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "output")
	r := n.Ctr(t.Context(), slices.Concat(strings.Fields(command), []string{"--log-uri", "file://" + path}, args)...)
	text, _ := os.ReadFile(path) // there is none if nothing was started
	r.Stdout = string(text)
	return r
}

// Import imports and unpacks an image, into the containerd namespace that ctr
// uses by default, and returns its reference.
func (n *Node) Import(ctx context.Context, name image.Name) (reference string, err error) {
	return n.ImportInto(ctx, "default", name)
}

// ImportInto is Import into a containerd namespace.
func (n *Node) ImportInto(ctx context.Context, namespace string, name image.Name) (reference string, err error) {
	i, err := image.Get(ctx, name)
	if err != nil {
		return "", err
	}
	args := []string{"--namespace", namespace, "images", "import", "--snapshotter", n.config.Snapshotter}
	if n.config.Containerd != peer.Containerd17 {
		// The transfer service, which is the default there, takes the snapshotter
		// from its own configuration.
		args = append(args, "--local")
	}
	return i.Reference, n.Ctr(ctx, append(args, i.Path)...).Err()
}

// MustImport is Import for tests.
func (n *Node) MustImport(t testing.TB, name image.Name) string {
	t.Helper()
	reference, err := n.Import(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return reference
}
