// SPDX-License-Identifier: Apache-2.0

package cgroup2

import (
	"context"
	"testing"

	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// call returns a connection to containerd, until the test ends, and a context to
// use it with.
func (n node) call(t *testing.T) (*grpc.ClientConn, context.Context) {
	t.Helper()
	connection, err := grpc.NewClient("unix://"+n.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := connection.Close(); err != nil {
			t.Error(err)
		}
	})
	return connection, metadata.AppendToOutgoingContext(t.Context(), "containerd-namespace", "default")
}

// update sets the limit that there is already, and as the CRI plugin does, it sends
// device rules along: here those of a privileged container.
func update(t *testing.T, c *container) {
	t.Helper()
	limit := int64(memoryLimit)
	c.Container(c.id).Update(t, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit}, Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}},
	})
}

// events returns the topics of containerd's events, until the test ends.
func events(t *testing.T, n node) <-chan string {
	t.Helper()
	connection, ctx := n.call(t)
	stream, err := eventsapi.NewEventsClient(connection).Subscribe(ctx, &eventsapi.SubscribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	topics := make(chan string, 100)
	go func() {
		for {
			envelope, err := stream.Recv()
			if err != nil {
				return // the test has ended
			}
			topics <- envelope.Topic
		}
	}()
	return topics
}

// owner is the host's id of a file's owner, which is that of its group as well.
func owner(t *testing.T, path string) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Uid != st.Gid {
		t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
	}
	return st.Uid
}
