// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/isolate-shim/isolate/integration/rig"
)

// start is when the program began, for telling how long things take.
var start = time.Now()

func progress(text string) {
	fmt.Printf("[%3.0fs] %s\n", time.Since(start).Seconds(), text)
}

// stage is where containers run.
type stage struct {
	node  *rig.Node
	image string
	execs int
}

// say prints a command as a reader would type it, who has ctr on the PATH and
// containerd at its usual address.
func say(args ...string) {
	line := "$ ctr"
	for len(args) > 0 {
		// A flag stays with its value.
		n := 1
		if strings.HasPrefix(args[0], "--") {
			n = min(2, len(args))
		}
		part := strings.Join(args[:n], " ")
		if args = args[n:]; len(line)+1+len(part) > 96 {
			fmt.Println(line + " \\")
			line = "     "
		}
		line += " " + part
	}
	fmt.Println(line)
}

// sayExec prints the command that runs a script in a container.
func sayExec(id, script string) {
	fmt.Printf("$ ctr tasks exec --exec-id x %s sh -c %q\n", id, script)
}

// run starts a container in the background and returns its process.
func (s *stage) run(ctx context.Context, args ...string) error {
	return s.node.Ctr(ctx, append([]string{"run", "-d"}, args...)...).Err()
}

// exec runs a shell script in a container.
func (s *stage) exec(ctx context.Context, id, script string) rig.Result {
	s.execs++
	return s.node.Ctr(ctx, "tasks", "exec", "--exec-id", "e"+strconv.Itoa(s.execs), id, "sh", "-c", script)
}

// remove ends a container.
func (s *stage) remove(ctx context.Context, id string) error {
	if err := s.node.Ctr(ctx, "tasks", "rm", "--force", id).Err(); err != nil {
		return err
	}
	return s.node.Ctr(ctx, "containers", "rm", id).Err()
}

// pid returns the first process of a container.
func (s *stage) pid(ctx context.Context, id string) (int, error) {
	list := s.node.Ctr(ctx, "tasks", "ls")
	if err := list.Err(); err != nil {
		return 0, err
	}
	for line := range strings.Lines(list.Stdout) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == id {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("container %q has no task", id)
}

// upper returns the directory on disk that holds what a container writes.
func (s *stage) upper(ctx context.Context, id string) (string, error) {
	mounts := s.node.Ctr(ctx, "snapshots", "mounts", "/mnt", id)
	if err := mounts.Err(); err != nil {
		return "", err
	}
	_, rest, found := strings.Cut(mounts.Stdout, "upperdir=")
	if !found {
		return "", fmt.Errorf("no upperdir in %q", mounts.Stdout)
	}
	upper, _, _ := strings.Cut(rest, ",")
	return strings.TrimSpace(upper), nil
}

// hostFile reads a file of the host.
func hostFile(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("look at the host: %w", err)
	}
	return string(text), nil
}
