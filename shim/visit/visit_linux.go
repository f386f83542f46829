// SPDX-License-Identifier: Apache-2.0

package visit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/internal/linux/inotify"
)

// Rootfs is an overlay on which a container runs and in which the host's ids have a place.
type Rootfs struct {
	Path  string // where it is mounted
	Upper string // its upper layer
	IDs   idmap.Span
	Store chown.Store
}

// Watch waits for visitors.
type Watch struct {
	rootfs Rootfs
	log    *log.Entry
	made   *inotify.Watch
	cancel context.CancelFunc
	ended  chan struct{}
	clean  bool // the goroutine's until ended is closed
}

// Start waits for visitors from now on, until Close. There must have been none.
func Start(ctx context.Context, r Rootfs) (*Watch, error) {
	made, err := inotify.Directories(r.Path, uint32(r.IDs.First))
	if err != nil {
		return nil, err
	}
	w := &Watch{rootfs: r, log: log.G(ctx), made: made, ended: make(chan struct{}), clean: true}
	ctx, w.cancel = context.WithCancel(ctx)
	go w.run(ctx)
	return w, nil
}

// Close ends the watch. It tells whether nothing is left to be settled; the mark of the
// layer has to stay otherwise.
func (w *Watch) Close() (clean bool) {
	w.cancel()
	err := w.made.Interrupt()
	<-w.ended
	names, err2 := w.made.Pending()
	w.made.Close()
	return errors.Join(err, err2) == nil && w.clean && !slices.ContainsFunc(names, isVisit)
}

// pivot is how the names of the directories begin that dockerd makes (SwitchRoot in
// moby's mounttree, and in its chrootarchive before).
const pivot = ".pivot_root"

func isVisit(made string) bool { return made == "" || strings.HasPrefix(made, pivot) }

const (
	// gathering is how long other names may join the first one.
	gathering = 10 * time.Millisecond
	// share is how often the time that a visit has cost passes before the next one is
	// looked at: the container can make these directories too.
	share = 10
	// tries is how often a visit is settled until that succeeds.
	tries = 5
)

func (w *Watch) run(ctx context.Context) {
	defer close(w.ended)
	for ctx.Err() == nil {
		names, err := w.made.Next()
		if err != nil {
			w.clean = w.clean && errors.Is(err, os.ErrDeadlineExceeded)
			return
		}
		wait := gathering
		if names = slices.DeleteFunc(names, func(name string) bool { return !isVisit(name) }); len(names) > 0 {
			w.clean = false
			w.awaitEntry(ctx, names)
			cost, err := w.settle(ctx)
			// The container may have moved what was being walked.
			for try := 1; err != nil && try < tries && ctx.Err() == nil; try++ {
				sleep(ctx, share*cost)
				cost, err = w.settle(ctx)
			}
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				w.log.WithError(err).Warn("isolate: what was copied into the container shows as nobody's until the container ends")
			}
			wait = max(wait, share*cost)
		}
		sleep(ctx, wait)
	}
}

// entering bounds how long a visitor may take to enter.
const entering = 10 * time.Second

// awaitEntry waits until the visitors that have made these directories are in: dockerd
// removes each when its thread has pivoted.
func (w *Watch) awaitEntry(ctx context.Context, made []string) {
	ctx, cancel := context.WithTimeout(ctx, entering)
	defer cancel()
	for _, name := range made {
		for wait := time.Millisecond; ctx.Err() == nil && name != ""; wait = min(2*wait, 100*time.Millisecond) {
			if _, err := directoryAt(w.rootfs.Path + "/" + name); err != nil {
				break
			}
			sleep(ctx, wait)
		}
	}
}

// settle waits for the end of all visits, and settles what they have left.
func (w *Watch) settle(ctx context.Context) (cost time.Duration, err error) {
	started := time.Now()
	there, err := w.visitors()
	if err != nil {
		return 0, err
	}
	cost = time.Since(started)
	if err := there.leave(ctx); err != nil {
		return cost, err
	}
	started = time.Now()
	defer func() { cost += time.Since(started) }()
	tree, err := os.OpenFile(w.rootfs.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return cost, fmt.Errorf("open rootfs: %w", err)
	}
	defer tree.Close()
	report, err := w.rootfs.Store.SettleRunning(ctx, w.rootfs.Upper, tree, w.rootfs.IDs)
	if err != nil {
		return cost, err
	}
	w.clean = report.Left.N == 0 && report.Immutable.N == 0
	w.log.Debugf("isolate: owners of what was copied into the container: %v", report)
	return cost, nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
