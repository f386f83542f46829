// SPDX-License-Identifier: Apache-2.0

package arrival

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/inotify"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/shim/member"
	"github.com/isolate-shim/isolate/shim/stage"
)

// Container is a container that runs on an overlay.
type Container struct {
	Init  *member.Process // not closed before the watch is
	Shelf stage.Shelf
	// Mapped is set if the ids of the container are not those on disk.
	Mapped bool
	// Stores are those that it may get.
	Stores []string
}

// Watch waits for programs.
type Watch struct {
	shelf   stage.Shelf
	give    func(store string) error
	pending []string
	log     *log.Entry
	made    *inotify.Watch // nil if nothing can be watched
	cancel  context.CancelFunc
	ready   chan struct{} // closed when made is there
	ended   chan struct{}
}

// Start waits for programs from a moment on, until Close: see [Watch.Ready].
func Start(ctx context.Context, c Container) *Watch { return start(ctx, c, c.give) }

func start(ctx context.Context, c Container, give func(store string) error) *Watch {
	w := &Watch{shelf: c.Shelf, give: give, pending: slices.Clone(c.Stores), log: log.G(ctx), ready: make(chan struct{}), ended: make(chan struct{})}
	ctx, w.cancel = context.WithCancel(ctx)
	go func() {
		defer close(w.ended)
		if w.watch() {
			w.run(ctx)
		}
	}()
	return w
}

// Ready returns when no program that comes is missed any more.
func (w *Watch) Ready() { <-w.ready }

// watch tells whether programs can be waited for.
func (w *Watch) watch() bool {
	defer close(w.ready)
	err := w.shelf.WithProgramDirs(func(paths []string) (err error) {
		w.made, err = inotify.Entries(paths, uint32(w.shelf.Owner.UID))
		return err
	})
	if err != nil {
		w.log.WithError(err).Warn(unseen)
	}
	return err == nil
}

const unseen = "isolate: programs that are installed in the container may find no overlayfs for their stores until it is started again"

// Close ends the watch.
func (w *Watch) Close() error {
	w.cancel()
	select {
	case <-w.ready:
	case <-time.After(leaving):
		return errors.New("the directories of programs are still being looked up")
	}
	if w.made == nil {
		return nil
	}
	err := w.made.Interrupt()
	select {
	case <-w.ended:
	case <-time.After(leaving): // layers can be on a server that hangs
		err = errors.Join(err, errors.New("a store of a program that was installed is still being made"))
	}
	w.made.Close()
	return err
}

const (
	// gathering is how long other names may join the first ones.
	gathering = 10 * time.Millisecond
	// share is how often the time that a look has cost passes before the next one.
	share = 10
	// leaving bounds how long Close waits for what is going on.
	leaving = time.Second
)

func (w *Watch) run(ctx context.Context) {
	for len(w.pending) > 0 {
		names, err := w.made.Next()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.log.WithError(err).Warn(unseen)
			return
		}
		started := time.Now()
		w.pending = slices.DeleteFunc(w.pending, func(store string) bool { return w.arrived(store, names) && w.got(ctx, store) }) //nolint:contextcheck // it looks at no bind
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(gathering, share*time.Since(started))):
		}
	}
}

// arrived tells whether a program that uses a store is among names.
func (w *Watch) arrived(store string, names []string) bool {
	if slices.ContainsFunc(names, func(name string) bool { return stage.Keeps(name, store) }) {
		return true
	}
	if !slices.Contains(names, "") {
		return false
	}
	has, err := w.shelf.Has(store)
	if err != nil {
		w.log.WithError(err).Debug("isolate: look for programs")
	}
	return has
}

// got attaches a store. It tells whether that need not be tried again.
func (w *Watch) got(ctx context.Context, store string) bool {
	err := w.give(store)
	l := w.log.WithField("store", store)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		l.Info("isolate: made an inner store for a program that was installed")
	case errors.Is(err, mount.ErrMounted), errors.Is(err, stage.ErrElsewhere):
		l.WithError(err).Debug("isolate: no inner store for a program that was installed")
	default:
		l.WithError(err).Warn("isolate: a program that was installed cannot use overlayfs in its store until the container is started again, or unless a volume is mounted there")
	}
	return true
}

// give makes a store and attaches it in the container.
func (c Container) give(store string) error {
	m, err := c.mapped(func(userns *os.File) (*os.File, error) { return c.Shelf.Make(store, userns) })
	if err != nil {
		return err
	}
	defer m.Close()
	root, err := c.root()
	if err != nil {
		return err
	}
	defer root.Close()
	return c.Init.Inside(func(in *mount.Inside) error { return in.AttachToRoot(m, root, store) })
}

// root opens the root directory of the container as the host has it.
func (c Container) root() (*os.File, error) {
	return os.OpenFile(c.Shelf.Rootfs, unix.O_PATH|unix.O_DIRECTORY, 0)
}

// mapped has a mount made with the container's ids.
func (c Container) mapped(clone func(userns *os.File) (*os.File, error)) (*os.File, error) {
	if !c.Mapped {
		return clone(nil)
	}
	userns, err := c.Init.Namespace("user")
	if err != nil {
		return nil, err
	}
	defer userns.Close()
	return clone(userns)
}
