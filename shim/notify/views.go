// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/shim/lxcfs"
)

// Views gets fresh files of lxcfs, the views, which are put over those of /proc and /sys
// of an inner container. Its caller closes them. It must return soon after ctx is over.
type Views func(ctx context.Context) ([]lxcfs.File, error)

// retryAfter is how long a failure to get views is remembered, and the longest time of
// one try.
const retryAfter = 5 * time.Second

// errLater means that the last try to get views failed a moment ago.
var errLater = errors.New("views could not be had a moment ago")

// store keeps views ready, since getting them takes longer than everything else.
//
// Linux 6.15 and later clone a detached mount, so one set is enough for all inner
// containers. Before 6.15 a set can be used once; when it is taken, the next one is
// fetched.
type store struct {
	fetch Views
	clone func([]lxcfs.File) ([]lxcfs.File, error)
	ctx   context.Context // until close
	stop  context.CancelFunc

	mu       sync.Mutex
	set      []lxcfs.File
	flight   chan struct{} // closed when the fetch under way has ended
	err      error
	failed   time.Time
	closed   bool
	fetching sync.WaitGroup
}

func newStore(fetch Views) *store {
	s := &store{fetch: fetch, clone: lxcfs.CloneFiles}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// take returns views, which the caller uses up and closes.
func (s *store) take(ctx context.Context) ([]lxcfs.File, error) {
	for {
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			return nil, os.ErrClosed
		case len(s.set) > 0:
			defer s.mu.Unlock()
			return s.use()
		case s.flight == nil && !s.failed.IsZero() && time.Since(s.failed) < retryAfter:
			defer s.mu.Unlock()
			return nil, fmt.Errorf("%w: %w", errLater, s.err)
		}
		flight := s.start()
		s.mu.Unlock()
		select {
		case <-flight:
		case <-ctx.Done():
			return nil, fmt.Errorf("get views: %w", ctx.Err())
		}
		s.mu.Lock()
		if len(s.set) == 0 && s.err != nil {
			defer s.mu.Unlock()
			return nil, s.err
		}
		s.mu.Unlock()
	}
}

// use returns clones of the set, or the set itself.
func (s *store) use() ([]lxcfs.File, error) {
	views, err := s.clone(s.set)
	if errors.Is(err, unix.EINVAL) {
		views, s.set = s.set, nil
		s.start()
		return views, nil
	}
	return views, err
}

// keep makes clones of views the set, unless there is a set or one is being fetched. If
// the kernel cannot clone them, and fetch is set, it fetches a set.
func (s *store) keep(views []lxcfs.File, fetch bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.set) > 0 || s.flight != nil {
		return nil
	}
	set, err := s.clone(views)
	switch {
	case err == nil:
		s.set = set
	case !errors.Is(err, unix.EINVAL):
		return fmt.Errorf("keep views for inner containers: %w", err)
	case fetch:
		s.start()
	}
	return nil
}

// start begins to fetch a set, unless one is being fetched. It is called with the lock
// held.
func (s *store) start() <-chan struct{} {
	if s.flight != nil {
		return s.flight
	}
	flight := make(chan struct{})
	s.flight = flight
	s.fetching.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, retryAfter)
		defer cancel()
		set, err := s.fetch(ctx)
		if err == nil && len(set) == 0 {
			err = errors.New("there are no views")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed || err != nil {
			lxcfs.CloseFiles(set)
			set = nil
		}
		s.set, s.err, s.flight, s.failed = set, err, nil, time.Time{}
		if err != nil {
			s.failed = time.Now()
		}
		close(flight)
	})
	return flight
}

// drop forgets the set, since its server is gone, and the last failure.
func (s *store) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	lxcfs.CloseFiles(s.set)
	s.set, s.failed = nil, time.Time{}
}

// hung is drop for a server that does not answer. It is not asked again for retryAfter.
func (s *store) hung() {
	s.drop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.failed = errors.New("the server of the views does not answer"), time.Now()
}

// close waits for a fetch that is under way.
func (s *store) close() {
	s.mu.Lock()
	s.closed = true
	s.stop()
	s.mu.Unlock()
	s.drop()
	s.fetching.Wait()
}
