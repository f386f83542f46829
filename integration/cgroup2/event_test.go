// SPDX-License-Identifier: Apache-2.0

package cgroup2

import (
	"testing"

	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// events returns the topics of containerd's events, until the test ends.
func events(t *testing.T, n node) <-chan string {
	t.Helper()
	connection, err := grpc.NewClient("unix://"+n.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "containerd-namespace", "default")
	stream, err := eventsapi.NewEventsClient(connection).Subscribe(ctx, &eventsapi.SubscribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	topics := make(chan string, 100)
	go func() {
		defer connection.Close()
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
