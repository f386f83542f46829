// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"reflect"
	"testing"

	// Its descriptors are what old callers are compiled with.
	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"
)

// TestV2MessagesMatchV3 proves what registerV2 relies on: on the wire, each
// message of task API v2 is that of v3 of the same name.
func TestV2MessagesMatchV3(t *testing.T) {
	t.Parallel()
	v2, v3 := taskv2.File_runtime_task_v2_shim_proto, taskAPI.File_runtime_task_v3_shim_proto
	if v2.Messages().Len() == 0 || v2.Messages().Len() != v3.Messages().Len() {
		t.Errorf("%d messages in v2, %d in v3", v2.Messages().Len(), v3.Messages().Len())
	}
	for i := range v2.Messages().Len() {
		old := v2.Messages().Get(i)
		today := v3.Messages().ByName(old.Name())
		if today == nil {
			t.Errorf("%s is not in v3", old.Name())
			continue
		}
		if a, b := describe(old), describe(today); !reflect.DeepEqual(a, b) {
			t.Errorf("%s has in v2\n%v, in v3\n%v", old.Name(), a, b)
		}
	}
	old, today := v2.Services().ByName("Task"), v3.Services().ByName("Task")
	if old == nil || today == nil || old.Methods().Len() != today.Methods().Len() {
		t.Fatal("the services differ")
	}
	for i := range old.Methods().Len() {
		a := old.Methods().Get(i)
		b := today.Methods().ByName(a.Name())
		if b == nil || a.Input().Name() != b.Input().Name() || a.Output().Name() != b.Output().Name() ||
			a.IsStreamingClient() || a.IsStreamingServer() {
			t.Errorf("method %s differs", a.Name())
		}
	}
}

// describe returns what decides how a message is encoded, by field number.
func describe(m protoreflect.MessageDescriptor) map[protoreflect.FieldNumber]string {
	out := map[protoreflect.FieldNumber]string{}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		of := ""
		switch {
		case f.Message() != nil:
			of = string(f.Message().Name())
			if f.Message().ParentFile() != m.ParentFile() {
				of = string(f.Message().FullName())
			}
		case f.Enum() != nil:
			of = string(f.Enum().FullName())
		}
		out[f.Number()] = fmt.Sprintf("%s %s %s %s map=%v packed=%v presence=%v",
			f.Name(), f.Cardinality(), f.Kind(), of, f.IsMap(), f.IsPacked(), f.HasPresence())
	}
	return out
}

// recorder answers each method with an error that names it.
type recorder struct{ taskAPI.TTRPCTaskService }

func (recorder) call(name string) error { return fmt.Errorf("called %s: %w", name, errdefs.ErrAborted) }

func (r recorder) State(context.Context, *taskAPI.StateRequest) (*taskAPI.StateResponse, error) {
	return nil, errgrpc.ToGRPC(r.call("State"))
}

func (r recorder) Create(context.Context, *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
	return nil, errgrpc.ToGRPC(r.call("Create"))
}

func (r recorder) Start(context.Context, *taskAPI.StartRequest) (*taskAPI.StartResponse, error) {
	return nil, errgrpc.ToGRPC(r.call("Start"))
}

func (r recorder) Delete(context.Context, *taskAPI.DeleteRequest) (*taskAPI.DeleteResponse, error) {
	return nil, errgrpc.ToGRPC(r.call("Delete"))
}

func (r recorder) Pids(context.Context, *taskAPI.PidsRequest) (*taskAPI.PidsResponse, error) {
	return nil, errgrpc.ToGRPC(r.call("Pids"))
}

func (r recorder) Pause(context.Context, *taskAPI.PauseRequest) (*emptypb.Empty, error) {
	return nil, errgrpc.ToGRPC(r.call("Pause"))
}

func (r recorder) Resume(context.Context, *taskAPI.ResumeRequest) (*emptypb.Empty, error) {
	return nil, errgrpc.ToGRPC(r.call("Resume"))
}

func (r recorder) Checkpoint(context.Context, *taskAPI.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return nil, errgrpc.ToGRPC(r.call("Checkpoint"))
}

func (r recorder) Kill(context.Context, *taskAPI.KillRequest) (*emptypb.Empty, error) {
	return nil, errgrpc.ToGRPC(r.call("Kill"))
}

func (r recorder) Exec(context.Context, *taskAPI.ExecProcessRequest) (*emptypb.Empty, error) {
	return nil, errgrpc.ToGRPC(r.call("Exec"))
}

func (r recorder) ResizePty(context.Context, *taskAPI.ResizePtyRequest) (*emptypb.Empty, error) {
	return nil, errgrpc.ToGRPC(r.call("ResizePty"))
}

func (r recorder) CloseIO(context.Context, *taskAPI.CloseIORequest) (*emptypb.Empty, error) {
	return nil, errgrpc.ToGRPC(r.call("CloseIO"))
}

func (r recorder) Update(context.Context, *taskAPI.UpdateTaskRequest) (*emptypb.Empty, error) {
	return nil, errgrpc.ToGRPC(r.call("Update"))
}

func (r recorder) Wait(_ context.Context, q *taskAPI.WaitRequest) (*taskAPI.WaitResponse, error) {
	if q.ID == "" {
		return nil, errgrpc.ToGRPC(r.call("Wait"))
	}
	return &taskAPI.WaitResponse{ExitStatus: uint32(len(q.ID + q.ExecID))}, nil
}

func (r recorder) Stats(context.Context, *taskAPI.StatsRequest) (*taskAPI.StatsResponse, error) {
	return nil, errgrpc.ToGRPC(r.call("Stats"))
}

func (r recorder) Connect(context.Context, *taskAPI.ConnectRequest) (*taskAPI.ConnectResponse, error) {
	return nil, errgrpc.ToGRPC(r.call("Connect"))
}

func (r recorder) Shutdown(context.Context, *taskAPI.ShutdownRequest) (*emptypb.Empty, error) {
	return nil, errgrpc.ToGRPC(r.call("Shutdown"))
}

// dial serves the recorder in both versions and connects to it.
func dial(t *testing.T) *ttrpc.Client {
	t.Helper()
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	taskAPI.RegisterTTRPCTaskService(server, recorder{})
	registerV2(server, recorder{})
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(context.WithoutCancel(t.Context()), l) }() // until it is closed
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() {
		if err := errors.Join(client.Close(), server.Close()); err != nil {
			t.Error(err)
		}
	})
	return client
}

// TestV2ServesEveryMethod calls each method that the descriptors of v2 have.
func TestV2ServesEveryMethod(t *testing.T) {
	t.Parallel()
	client := dial(t)
	service := taskv2.File_runtime_task_v2_shim_proto.Services().ByName("Task")
	for i := range service.Methods().Len() {
		name := string(service.Methods().Get(i).Name())
		err := client.Call(t.Context(), string(service.FullName()), name, &emptypb.Empty{}, &emptypb.Empty{})
		if err = errgrpc.ToNative(err); !errdefs.IsAborted(err) || err.Error() != "called "+name+": aborted" {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := client.Call(t.Context(), string(service.FullName()), "Nothing", &emptypb.Empty{}, &emptypb.Empty{})
	if !errdefs.IsNotImplemented(errgrpc.ToNative(err)) {
		t.Errorf("a method that is not there: %v", err)
	}
}

// TestV2CarriesMessages sends a request as a client of v2 does.
func TestV2CarriesMessages(t *testing.T) {
	t.Parallel()
	got, err := taskv2.NewTTRPCTaskClient(dial(t)).Wait(t.Context(), &taskv2.WaitRequest{ID: "four", ExecID: "six..."})
	if err != nil || !proto.Equal(got, &taskv2.WaitResponse{ExitStatus: 10}) {
		t.Errorf("%v, %v", got, err)
	}
}
