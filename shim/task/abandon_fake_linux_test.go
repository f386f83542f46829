// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/isolate-shim/isolate/internal/testprogram"
)

// TestSecondCreateOfAnID is refused while the first one goes on, and when it is over;
// neither harms the first one.
func TestSecondCreateOfAnID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.restored("a")
	w.up.create = func(context.Context, *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
		if _, err := w.Create(w.ctx(), r); !errdefs.IsAlreadyExists(errgrpc.ToNative(err)) {
			t.Errorf("at the same time: %v", err)
		}
		return &taskAPI.CreateTaskResponse{}, nil
	}
	w.made("a")
	if _, err := w.Create(w.ctx(), r); !errdefs.IsAlreadyExists(errgrpc.ToNative(err)) {
		t.Errorf("afterwards: %v", err)
	}
	equal(t, "leased to", w.leases(), []string{"a"})
	w.deleted("a")
	w.up.create = nil
	w.made("a") // the id is free
	w.deleted("a")
}

// TestAbandonedCreate: a client kills or deletes what the runtime takes long to make.
// Then the call fails, and all is undone before a delete answers.
func TestAbandonedCreate(t *testing.T) {
	t.Parallel()
	for name, abandon := range map[string]func(*world) error{
		"kill": func(w *world) error {
			_, err := w.Kill(w.ctx(), &taskAPI.KillRequest{ID: "a", Signal: 9})
			return err
		},
		"shutdown": func(w *world) error {
			_, err := w.Shutdown(w.ctx(), &taskAPI.ShutdownRequest{ID: "a"})
			return err
		},
		"end of the shim": func(w *world) error { return w.undoAll(w.ctx()) },
		"delete": func(w *world) error {
			_, err := w.Delete(w.ctx(), &taskAPI.DeleteRequest{ID: "a"})
			if left := w.kernel.Mounted(); len(left) > 0 {
				w.t.Errorf("mounted are %q", left)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			running, over := make(chan struct{}), make(chan error)
			w.up.create = func(ctx context.Context, _ *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
				close(running)
				<-ctx.Done() // go-runc kills the runtime
				return nil, ctx.Err()
			}
			r := w.restored("a")
			go func() {
				_, err := w.Create(w.ctx(), r)
				over <- err
			}()
			<-running
			done := make(chan error, 1)
			go func() { done <- abandon(w) }()
			if err := <-over; !errdefs.IsAborted(errgrpc.ToNative(err)) || !strings.Contains(err.Error(), "killed or deleted") {
				t.Errorf("create answers %v", err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAbandonedTooLate: the runtime has made the container when its client gives it
// up, and takes no notice. It is removed from the runtime as well.
func TestAbandonedTooLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.up.create = func(ctx context.Context, _ *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
		if _, err := w.Kill(w.ctx(), &taskAPI.KillRequest{ID: "a", Signal: 9}); err != nil {
			t.Error(err)
		}
		<-ctx.Done()
		return &taskAPI.CreateTaskResponse{}, nil
	}
	if _, err := w.Create(w.ctx(), w.restored("a")); !errdefs.IsAborted(errgrpc.ToNative(err)) {
		t.Errorf("got %v", err)
	}
	equal(t, "upstream was asked", w.up.called(), []string{"create a", "wait a", "delete a"})
}

// TestClientLeaves while the runtime works: its context ends, and what was done is
// undone all the same, also what takes a runtime that is run for it.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mkdir("bin")
	if err := testprogram.Write(w.bin.Path, "#!/bin/sh\necho \"$@\" >"+w.path("asked")+"\nrmdir \"$2/a\"\n"); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join("runc", w.ns, "a")
	ctx, leave := context.WithCancel(namespaces.WithNamespace(context.Background(), w.ns))
	w.up.create = func(ctx context.Context, _ *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
		w.mkdir(state) // what a runtime that is killed leaves behind
		leave()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if _, err := w.Create(ctx, w.restored("a")); !errdefs.IsCanceled(errgrpc.ToNative(err)) {
		t.Errorf("got %v", err)
	}
	if !w.kernel.Has("unmount rootfs") {
		t.Error("the rootfs was not unmounted")
	}
	asked, err := os.ReadFile(w.path("asked"))
	if want := "--root " + filepath.Dir(w.path(state)) + " delete --force a\n"; err != nil || string(asked) != want {
		t.Errorf("the runtime was asked %q (%v), want %q", asked, err, want)
	}
}
