// SPDX-License-Identifier: Apache-2.0

package lxcfs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/disposable"
	"github.com/isolate-shim/isolate/shim/config"
)

// Served is what an lxcfs serves.
type Served struct {
	// Root is its mount point.
	Root string
	// Device numbers its superblock, as in mountinfo.
	Device Device
	// Seen is when it answered, since boot (CLOCK_BOOTTIME).
	Seen time.Duration
	// Files are those that it serves; one of them could be read a moment ago.
	Files []File
	// Skipped are files that exist and cannot be used, and why.
	Skipped map[string]error
}

// File is one file of lxcfs.
type File struct {
	// Name is relative to the root: "proc/meminfo". It has the same place
	// below "/" of a container.
	Name string
	// Mount is the file as a detached mount, to be attached with move_mount(2).
	// Attaching uses it up; closing it then leaves the mount where it is.
	Mount *os.File
}

// Close releases the mounts.
func (s Served) Close() error {
	var errs []error
	for _, f := range s.Files {
		if err := f.Mount.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Look is a look at lxcfs that is under way. It takes about as long as starting
// a process and reading a dozen files, and goes on beside other work.
type Look struct {
	cfg    config.LXCFS
	cancel context.CancelFunc
	found  chan struct{} // closed when it is known what is mounted
	done   chan struct{}

	mounts []mount
	served Served
	err    error
	once   sync.Once
}

// Start begins to look at lxcfs as the configuration says. The caller must call
// Close.
func Start(ctx context.Context, cfg config.LXCFS) *Look {
	l := &Look{cfg: cfg, found: make(chan struct{}), done: make(chan struct{})}
	if cfg.Mode == config.LXCFSOff {
		l.cancel = func() {}
		l.err = ErrOff
		close(l.found)
		close(l.done)
		return l
	}
	ctx, l.cancel = context.WithTimeout(ctx, cfg.Timeout())
	go func() {
		defer close(l.done)
		l.mounts, l.err = find(cfg.Path)
		close(l.found)
		if l.err == nil {
			l.served, l.err = look(ctx, cfg, l.mounts)
		}
	}()
	return l
}

// Mounted tells, at once, whether there is an lxcfs to look at. It may be dead.
func (l *Look) Mounted() bool {
	<-l.found
	return len(l.mounts) > 0
}

// Result waits for the look to end, at most until the configured timeout is
// over. The files stay the Look's: they are closed with it.
func (l *Look) Result() (Served, error) {
	<-l.done
	return l.served, l.err
}

// Required tells whether a container must not start without lxcfs.
func (l *Look) Required() bool { return l.cfg.Mode == config.LXCFSRequire }

// Close ends the look if it is under way and closes the files. It may be called
// more than once.
func (l *Look) Close() error {
	var err error
	l.once.Do(func() {
		l.cancel()
		<-l.done
		err = l.served.Close()
	})
	return err
}

// find returns the mounts of lxcfs to try; see choose.
func find(path string) ([]mount, error) {
	infos, err := mountinfo.GetMounts(mountinfo.FSTypeFilter(fsType))
	if err != nil {
		return nil, fmt.Errorf("look for lxcfs: %w", err)
	}
	return choose(infos, path)
}

// look tries the mounts until one serves.
func look(ctx context.Context, cfg config.LXCFS, mounts []mount) (Served, error) {
	var first error
	for _, m := range mounts {
		served, err := lookAt(ctx, m, cfg.Timeout())
		if err == nil {
			return served, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return Served{}, first
}

// lookAt runs a child that looks at one mount. It returns when the child has
// told everything or ctx is over, whatever became of the child.
func lookAt(ctx context.Context, m mount, limit time.Duration) (_ Served, retErr error) {
	c, err := disposable.Start(ctx, nil, nil, childName, m.Root, strconv.Itoa(m.ID), (limit + disposable.Grace).String())
	if err != nil {
		return Served{}, fmt.Errorf("look at lxcfs: %w", err)
	}
	defer c.Close() //nolint:errcheck // nothing was written
	served := Served{Root: m.Root, Device: m.Device, Skipped: map[string]error{}}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, served.Close())
		}
	}()
	for {
		msg, mount, err := receive(c.Conn)
		switch {
		case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
			hang(c)
			return served, hung(m.Root, limit)
		case ctx.Err() != nil:
			return served, fmt.Errorf("look at lxcfs on %q: %w", m.Root, ctx.Err())
		case err != nil:
			return served, fmt.Errorf("look at lxcfs on %q: %w", m.Root, err)
		case msg.End:
			served.Seen = sinceBoot()
			return served, verdict(served, msg)
		case msg.File != "":
			served.Files = append(served.Files, File{Name: msg.File, Mount: mount})
		case msg.Skip != "":
			served.Skipped[msg.Skip] = msg.Errno
		}
	}
}

// verdict tells what a complete report means.
func verdict(s Served, end message) error {
	switch {
	case end.Hidden:
		return absent(fmt.Sprintf("its mount on %q is hidden: %s", s.Root, end.Failed))
	case end.Errno == unix.ENOTCONN || end.Errno == unix.ECONNABORTED:
		return dead(s.Root, end.Errno)
	case end.Errno == unix.EACCES || end.Errno == unix.EPERM:
		return refused(s.Root, end.Errno)
	case end.Failed != "":
		return fmt.Errorf("look at lxcfs on %q: %s", s.Root, end.Failed)
	case len(s.Files) > 0:
		return nil
	}
	for name, err := range s.Skipped {
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			return refused(s.Root, fmt.Errorf("%s: %w", name, err))
		}
	}
	return dead(s.Root, errors.New("it serves no file"))
}

func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // then whatever is asked about it looks later
	}
	return time.Duration(ts.Nano())
}

// waiting counts the children that did not end in time and still have not.
var waiting atomic.Int32

// Waiting tells whether a server that did not answer in time still does not. Callers
// that ask again and again have to look at it: each question leaves a process waiting.
func Waiting() bool { return waiting.Load() > 0 }

// hang notes that a child did not answer in time.
func hang(c *disposable.Child) {
	waiting.Add(1)
	go func() {
		<-c.Ended()
		waiting.Add(-1)
	}()
}

// receive reads one message and the mount that comes with it.
func receive(conn *net.UnixConn) (_ message, _ *os.File, retErr error) {
	data, mounts, err := disposable.Receive(conn, maxMessage, "file of lxcfs")
	if err != nil {
		return message{}, nil, err
	}
	defer func() {
		if retErr != nil {
			for _, f := range mounts {
				_ = f.Close() // a message that is refused
			}
		}
	}()
	msg, err := decode(data)
	if err != nil {
		return message{}, nil, err
	}
	if want := msg.File != ""; want != (len(mounts) == 1) {
		return message{}, nil, fmt.Errorf("message with %d descriptors", len(mounts))
	}
	if msg.File == "" {
		return msg, nil, nil
	}
	return msg, mounts[0], nil
}
