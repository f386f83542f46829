// SPDX-License-Identifier: Apache-2.0

package task

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
)

// TestShimAloneEnds: nobody asks for its first container, or it has deleted its last one
// and nobody waits for that any more.
func TestShimAloneEnds(t *testing.T) {
	var connected atomic.Bool
	for name, c := range map[string]struct {
		before func(t *testing.T, s *Service)
		ends   bool // soon
	}{
		"no container yet of a slow client": {func(*testing.T, *Service) { connected.Store(true) }, false},
		"failed creation of a client that stays": {func(t *testing.T, s *Service) {
			connected.Store(true)
			time.Sleep(time.Hour)
			fail1(t, s)
		}, true},
		"client that leaves before it asks": {func(*testing.T, *Service) {
			connected.Store(true)
			time.AfterFunc(time.Hour-time.Second, func() { connected.Store(false) })
			time.Sleep(time.Hour - aloneAtFirst + aloneAtLast)
		}, false},
		"no container":    {func(*testing.T, *Service) {}, false},
		"failed creation": {fail1, true},
		"creation that goes on": {func(t *testing.T, s *Service) {
			if _, _, err := s.begin(t.Context(), request); err != nil {
				t.Error(err)
			}
		}, false},
		"container": {func(t *testing.T, s *Service) { make1(t, s, "a") }, false},
		"deleted container": {func(t *testing.T, s *Service) {
			make1(t, s, "a")
			time.Sleep(time.Hour)
			remove1(t, s, "a")
		}, true},
		"deleted container of two": {func(t *testing.T, s *Service) {
			make1(t, s, "a")
			make1(t, s, "b")
			remove1(t, s, "a")
		}, false},
		"another container soon": {func(t *testing.T, s *Service) {
			make1(t, s, "a")
			remove1(t, s, "a")
			time.Sleep(aloneAtLast / 2)
			make1(t, s, "b")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := &upstream{}
				s := serviceOver(up)
				connected.Store(false)
				s.leave, s.connected = s.end, connected.Load
				s.leaveIfAlone(aloneAtFirst)
				c.before(t, s)
				synctest.Wait()
				up.called()
				time.Sleep(aloneAtLast + time.Second)
				if got := ended(up); got != c.ends {
					t.Errorf("soon: ended is %v, want %v", got, c.ends)
				}
				time.Sleep(aloneAtFirst)
				if got, empty := ended(up), len(s.containers)+len(s.creations) == 0 && !connected.Load(); got != (empty && !c.ends) {
					t.Errorf("later: ended is %v", got)
				}
			})
		})
	}
}

// TestShimStaysWhileItDeletes: a shim ended 3 s after it had made a container, which was
// just being deleted, and the client that waited for that got "ttrpc: closed".
func TestShimStaysWhileItDeletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &upstream{deletes: aloneAtLast + aloneAtFirst}
		s := serviceOver(up)
		s.leave, s.connected = s.end, func() bool { return false }
		s.leaveIfAlone(aloneAtFirst)
		make1(t, s, "a")
		remove1(t, s, "a")
		if ended(up) {
			t.Error("the shim has ended before the container was deleted")
		}
		time.Sleep(aloneAtLast - time.Second)
		if ended(up) {
			t.Error("the shim has ended because of an earlier container")
		}
		time.Sleep(2 * time.Second)
		if !ended(up) {
			t.Error("the shim has not ended after its last container")
		}
	})
}

// ended tells whether the shim was asked to end since the last time.
func ended(up *upstream) bool {
	return slices.ContainsFunc(up.called(), func(call string) bool { return strings.HasPrefix(call, "shutdown") })
}

// fail1 begins a creation that fails.
func fail1(t *testing.T, s *Service) {
	t.Helper()
	_, c, err := s.begin(t.Context(), request)
	if err != nil {
		t.Error(err)
		return
	}
	s.over(c)
}

// make1 makes a container known.
func make1(t *testing.T, s *Service, id string) {
	t.Helper()
	_, c, err := s.begin(t.Context(), &taskAPI.CreateTaskRequest{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.enter(c.ctx, c.container); err != nil {
		t.Fatal(err)
	}
	s.over(c)
}

// remove1 deletes a container for which nothing was done.
func remove1(t *testing.T, s *Service, id string) {
	t.Helper()
	s.mu.Lock()
	delete(s.containers, id)
	s.mu.Unlock()
	if _, err := s.Delete(t.Context(), &taskAPI.DeleteRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
}
