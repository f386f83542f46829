// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"

	linuxproc "github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/record"
)

// strangers is an upstream that knows no container.
type strangers struct{ taskAPI.TTRPCTaskService }

func (strangers) Delete(context.Context, *taskAPI.DeleteRequest) (*taskAPI.DeleteResponse, error) {
	return nil, errdefs.ErrNotFound
}

func (strangers) Shutdown(context.Context, *taskAPI.ShutdownRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

var request = &taskAPI.CreateTaskRequest{ID: "a"}

// TestCreationThatHangsIsEnded: containerd deletes what its client has given up, and
// upstream does not know it yet.
func TestCreationThatHangsIsEnded(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Service) error{
		"delete": func(s *Service) error {
			_, err := s.Delete(t.Context(), &taskAPI.DeleteRequest{ID: "a"})
			if len(s.creations) > 0 {
				t.Error("it was not waited for")
			}
			if errors.Is(err, errdefs.ErrNotFound) {
				return nil
			}
			return err
		},
		"kill": func(s *Service) error {
			_, err := s.Kill(t.Context(), &taskAPI.KillRequest{ID: "a", Signal: uint32(unix.SIGKILL)})
			return err
		},
		"shutdown": func(s *Service) error {
			_, err := s.Shutdown(t.Context(), &taskAPI.ShutdownRequest{ID: "a"})
			return err
		},
		"end of the shim": func(s *Service) error { return s.undoAll(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &Service{TTRPCTaskService: strangers{}, containers: map[string]*container{}, creations: map[string]*creation{}}
			_, c, err := s.begin(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.begin(t.Context(), request); !errors.Is(err, errdefs.ErrAlreadyExists) {
				t.Errorf("a second one with the same id: %v", err)
			}
			entered := make(chan error)
			go func() {
				<-c.ctx.Done()
				err := s.enter(c.ctx, c.container)
				s.over(c)
				entered <- err
			}()
			if err := end(s); err != nil {
				t.Error(err)
			}
			if err := <-entered; !errors.Is(err, errAbandoned) {
				t.Errorf("the container is there: %v", err)
			}
			if _, _, err := s.begin(t.Context(), request); err != nil {
				t.Errorf("the id is not free: %v", err)
			}
		})
	}
}

// TestCreatedContainerIsNotEnded by Shutdown, which is for shims without any.
func TestCreatedContainerIsNotEnded(t *testing.T) {
	t.Parallel()
	s := &Service{TTRPCTaskService: strangers{}, containers: map[string]*container{}, creations: map[string]*creation{}}
	_, c, err := s.begin(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.enter(c.ctx, c.container); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Shutdown(t.Context(), &taskAPI.ShutdownRequest{ID: "a"}); err != nil || c.ctx.Err() != nil {
		t.Error(err, c.ctx.Err())
	}
	s.over(c)
	if s.abandon("a") != nil || s.container("a") == nil {
		t.Error("it is still being created")
	}
	if _, _, err := s.begin(t.Context(), request); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("a second one with the same id: %v", err)
	}
}

// TestReusedIDWaitsForTheUndo: a client that has given up uses the id again at once,
// in the same pod.
func TestReusedIDWaitsForTheUndo(t *testing.T) {
	t.Parallel()
	s := &Service{TTRPCTaskService: strangers{}, containers: map[string]*container{}, creations: map[string]*creation{}}
	_, c, err := s.begin(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	s.abandon("a")
	impatient, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := s.begin(impatient, request); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it has not waited: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { s.over(c) })
	if _, _, err := s.begin(t.Context(), request); err != nil {
		t.Errorf("the id is not free: %v", err)
	}
}

// TestUndoingThatHangsHoldsNobodyUp: Delete waits for a moment.
func TestUndoingThatHangsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	s := &Service{TTRPCTaskService: strangers{}, containers: map[string]*container{}, creations: map[string]*creation{}}
	if _, _, err := s.begin(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*undoneAfter)
	defer cancel()
	if s.awaitUndo(ctx, "a"); ctx.Err() != nil {
		t.Error(ctx.Err())
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := s.undoAll(short); err == nil {
		t.Error("the shim ends while a creation goes on")
	}
}

// TestEarlierContainerOfAnotherContainerd is left alone while it lives: the same id
// in another bundle.
func TestEarlierContainerOfAnotherContainerd(t *testing.T) {
	t.Parallel()
	bundle := t.TempDir()
	self, err := linuxproc.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	alive, ended := self.ID(), self.ID()
	ended.Start++
	for _, c := range []struct {
		name   string
		bundle string
		init   *linuxproc.ID
		want   bool
	}{
		{"alive", bundle, &alive, true},
		{"ended", bundle, &ended, false},
		{"never created", bundle, nil, false},
		{"bundle is gone", filepath.Join(bundle, "nope"), &alive, false},
		{"same bundle", "/b", &alive, false},
	} {
		got, err := ofAnother(&record.Record{Bundle: c.bundle, Init: c.init}, "/b")
		if err != nil || got != c.want {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}
