// SPDX-License-Identifier: Apache-2.0

package task

// This file is for containerd 1.7 to 2.2, which speak task API v2; see
// package manager's legacy_linux.go, with which it can be deleted.

import (
	"context"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
)

// registerV2 serves s as task API v2 as well. The messages of v2 and v3 have
// the same fields with the same numbers (TestV2MessagesMatchV3), so the
// messages of v3 are read from, and written to, the wire of v2.
func registerV2(server *ttrpc.Server, s taskAPI.TTRPCTaskService) {
	server.RegisterService("containerd.task.v2.Task", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"State":      method(s.State),
		"Create":     method(s.Create),
		"Start":      method(s.Start),
		"Delete":     method(s.Delete),
		"Pids":       method(s.Pids),
		"Pause":      method(s.Pause),
		"Resume":     method(s.Resume),
		"Checkpoint": method(s.Checkpoint),
		"Kill":       method(s.Kill),
		"Exec":       method(s.Exec),
		"ResizePty":  method(s.ResizePty),
		"CloseIO":    method(s.CloseIO),
		"Update":     method(s.Update),
		"Wait":       method(s.Wait),
		"Stats":      method(s.Stats),
		"Connect":    method(s.Connect),
		"Shutdown":   method(s.Shutdown),
	}})
}

func method[Q, R any](call func(context.Context, *Q) (*R, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		q := new(Q)
		if err := unmarshal(q); err != nil {
			return nil, err
		}
		return call(ctx, q)
	}
}
