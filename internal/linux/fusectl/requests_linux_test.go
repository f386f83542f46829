// SPDX-License-Identifier: Apache-2.0

package fusectl

import (
	"errors"
	"os"
	"testing"
)

func TestRequests(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for mounts")
	}
	const mine = 1879179265
	asked := ask(stalled(t, mine))
	r, err := OpenRequests(waits(t, mine).Device)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		if n, err := r.Waiting(); n < 1 || err != nil {
			t.Errorf("%d requests wait, %v", n, err)
		}
	}
	if _, err := Abort(func(c Connection) bool { return c.Owner == mine }); err != nil {
		t.Fatal(err)
	}
	if err := <-asked; err == nil {
		t.Error("the server has answered")
	}
	// A mount keeps a connection that has ended.
	if n, err := r.Waiting(); n != 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the end %d requests wait, %v", n, err)
	}
	if _, err := OpenRequests(1 << 31); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such connection: %v", err)
	}
}

func BenchmarkWaiting(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root for mounts")
	}
	const mine = 1879244801
	ask(stalled(b, mine))
	r, err := OpenRequests(waits(b, mine).Device)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := r.Close(); err != nil {
			b.Error(err)
		}
	})
	for b.Loop() {
		if _, err := r.Waiting(); err != nil {
			b.Fatal(err)
		}
	}
}
