// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// Container is a container of a machine.
type Container struct {
	Machine *Machine
	ID      string
}

// Container is the one with an id, in whatever state it is.
func (m *Machine) Container(id string) *Container { return &Container{Machine: m, ID: id} }

// State returns the container's first process and its state as ctr prints it,
// "RUNNING" for example; 0 and "" if it has no task.
func (c *Container) State(t testing.TB) (pid int, state string) {
	t.Helper()
	for line := range strings.Lines(c.Machine.Ctr(t.Context(), "tasks", "ls").Must(t)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == c.ID {
			pid, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return pid, f[2]
		}
	}
	return 0, ""
}

// Pid is the container's first process, which must be there.
func (c *Container) Pid(t testing.TB) int {
	t.Helper()
	pid, _ := c.State(t)
	if pid == 0 {
		t.Fatalf("container %q has no task", c.ID)
	}
	return pid
}

// execs numbers processes; some tests are parallel.
var execs atomic.Int32

// Exec runs a program in the container, with flags of ctr tasks exec; see
// Node.Output.
func (c *Container) Exec(t testing.TB, flags []string, argv ...string) Result {
	t.Helper()
	return c.Machine.Output(t, "tasks exec", slices.Concat(ExecID(), flags, []string{c.ID}, argv)...)
}

// ExecID is the flag of ctr tasks exec that gives a process an id of its own.
func ExecID() []string { return []string{"--exec-id", fmt.Sprintf("e%d", execs.Add(1))} }

// Sh is Exec of a shell script.
func (c *Container) Sh(t testing.TB, script string) Result {
	t.Helper()
	return c.Exec(t, nil, "sh", "-c", script)
}

// Remove removes the container in any state; that it is gone is no error.
func (c *Container) Remove(t testing.TB) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // which ends before the clean-up
	for _, argv := range [][]string{{"tasks", "rm", "--force", c.ID}, {"containers", "rm", c.ID}} {
		// The exit status of what was removed is that of rm.
		if r := c.Machine.Ctr(ctx, argv...); r.Err() != nil && r.Code != 137 && !strings.Contains(r.Stderr, "non-zero exit code 137") && !strings.Contains(r.Stderr, "not found") {
			t.Errorf("remove %q: %v", c.ID, r.Err())
		}
	}
	// A task whose shim was killed is not listed while containerd clears it away, and its
	// id is refused until then.
	bundle := filepath.Join(c.Machine.State, taskDir, "default", c.ID)
	Eventually(t, "containerd to forget the task of "+c.ID, func() bool {
		_, err := os.Lstat(bundle)
		return errors.Is(err, fs.ErrNotExist)
	})
	// It forgets the task a moment later.
	Within(forgetTime, func() bool { return c.unknown(ctx) })
}

// forgetTime is how long containerd may take, after it has removed a bundle, to admit that
// id again.
const forgetTime = 5 * time.Second

// unknown tells whether containerd knows no task of the container.
func (c *Container) unknown(ctx context.Context) bool {
	connection, err := grpc.NewClient("unix://"+c.Machine.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return false
	}
	defer connection.Close()
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", "default")
	_, err = tasks.NewTasksClient(connection).Get(ctx, &tasks.GetRequest{ContainerID: c.ID})
	return status.Code(err) == codes.NotFound
}

// Update sends an update of resources, as the CRI plugin does.
func (c *Container) Update(t testing.TB, resources *specs.LinuxResources) {
	t.Helper()
	value, err := json.Marshal(resources)
	if err != nil {
		t.Fatal(err)
	}
	connection, err := grpc.NewClient("unix://"+c.Machine.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "containerd-namespace", "default")
	request := &tasks.UpdateTaskRequest{ContainerID: c.ID, Resources: &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", Value: value}}
	if _, err := tasks.NewTasksClient(connection).Update(ctx, request); err != nil {
		t.Error(err)
	}
}
