// SPDX-License-Identifier: Apache-2.0

package lxcfs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/disposable"
	"github.com/isolate-shim/isolate/shim/config"
)

// Origin is the lxcfs that files come from.
type Origin struct {
	// Root is its mount point, "" for none.
	Root   string
	Device Device
	// Seen is when it answered, since boot (CLOCK_BOOTTIME).
	Seen time.Duration
}

// Result is what a probe has found out of an lxcfs.
type Result struct {
	Origin
	// Files are those that lxcfs serves; one of them could be read a moment ago.
	Files []File
	// Skipped has the files that exist and cannot be used, and why.
	Skipped map[string]error
}

// Probe finds out what lxcfs serves, beside other work. It takes about as long as
// starting a process and reading a dozen files.
type Probe struct {
	cfg    config.LXCFS
	cancel context.CancelFunc
	found  chan struct{} // closed when it is known what is mounted
	done   chan struct{}

	mounts []mount
	result Result
	err    error
}

// StartProbe begins to probe the lxcfs that the configuration names. The caller must
// call Close.
func StartProbe(ctx context.Context, cfg config.LXCFS) *Probe {
	p := &Probe{cfg: cfg, found: make(chan struct{}), done: make(chan struct{})}
	if cfg.Mode == config.LXCFSOff {
		p.cancel = func() {}
		p.err = ErrOff
		close(p.found)
		close(p.done)
		return p
	}
	ctx, p.cancel = context.WithTimeout(ctx, cfg.Timeout())
	go func() {
		defer close(p.done)
		p.mounts, p.err = find(cfg.Path)
		close(p.found)
		if p.err == nil {
			p.result, p.err = probe(ctx, cfg, p.mounts)
		}
	}()
	return p
}

// Mounted tells, at once, whether an lxcfs is mounted. It may be dead.
func (p *Probe) Mounted() bool {
	<-p.found
	return len(p.mounts) > 0
}

// Result waits for the probe to end, at most until the configured timeout is over.
// The files belong to the probe: Close closes them.
func (p *Probe) Result() (Result, error) {
	<-p.done
	return p.result, p.err
}

// Required tells whether a container must not start without lxcfs.
func (p *Probe) Required() bool { return p.cfg.Mode == config.LXCFSRequire }

// Close ends the probe and closes the files. It may be called more than once.
func (p *Probe) Close() {
	p.cancel()
	<-p.done
	CloseFiles(p.result.Files)
}

// find returns the mounts of lxcfs to try; see choose.
func find(path string) ([]mount, error) {
	infos, err := mountinfo.GetMounts(mountinfo.FSTypeFilter(fsType))
	if err != nil {
		return nil, fmt.Errorf("find lxcfs: %w", err)
	}
	return choose(infos, path)
}

// probe tries the mounts until one serves. The error is that of the first one.
func probe(ctx context.Context, cfg config.LXCFS, mounts []mount) (Result, error) {
	var first error
	for _, m := range mounts {
		result, err := probeMount(ctx, m, cfg.Timeout())
		if err == nil {
			return result, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return Result{Origin: mounts[0].origin()}, first
}

// probeMount runs a child that probes one mount. It returns when the child has told
// everything or ctx is over, whatever became of the child.
func probeMount(ctx context.Context, m mount, limit time.Duration) (_ Result, retErr error) {
	c, err := disposable.Start(ctx, nil, nil, childName, m.Root, strconv.Itoa(m.ID), (limit + disposable.Grace).String())
	if err != nil {
		return Result{}, fmt.Errorf("probe lxcfs: %w", err)
	}
	defer c.Close() //nolint:errcheck // nothing was written
	result := Result{Origin: m.origin(), Skipped: map[string]error{}}
	defer func() {
		if retErr != nil {
			CloseFiles(result.Files)
		}
	}()
	for {
		msg, mount, err := receive(c.Conn)
		switch {
		case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
			hang(c, m.ID)
			return result, hung(m.Root, limit)
		case ctx.Err() != nil:
			return result, fmt.Errorf("probe lxcfs on %q: %w", m.Root, ctx.Err())
		case err != nil:
			return result, fmt.Errorf("probe lxcfs on %q: %w", m.Root, err)
		case msg.End:
			result.Seen = sinceBoot()
			return result, verdict(result, msg)
		case msg.File != "":
			result.Files = append(result.Files, File{Name: msg.File, Mount: mount})
		case msg.Skip != "":
			result.Skipped[msg.Skip] = msg.Errno
		}
	}
}

// verdict tells what a complete report means.
func verdict(s Result, end message) error {
	switch {
	case end.Hidden:
		return absent(fmt.Sprintf("its mount on %q is hidden: %s", s.Root, end.Failed))
	case IsDead(end.Errno):
		return dead(s.Root, end.Errno)
	case end.Errno == unix.EACCES || end.Errno == unix.EPERM:
		return refused(s.Root, end.Errno)
	case end.Errno == unix.EIO:
		return unsupported(s.Root, end.Errno)
	case end.Failed != "":
		return fmt.Errorf("probe lxcfs on %q: %s", s.Root, end.Failed)
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
		return 0 // then every server counts as a later one
	}
	return time.Duration(ts.Nano())
}

// waiting has the children that did not end in time and still have not, and the numbers of
// the mounts that they ask: as long as they do, no other mounts get these numbers.
var waiting sync.Map

// Waiting tells whether the lxcfs that a probe would try first did not answer in time and
// still does not. Callers that ask again and again must heed it: each question leaves a
// process waiting.
func Waiting(path string) bool {
	var asked []any
	waiting.Range(func(_, mount any) bool { asked = append(asked, mount); return true })
	if len(asked) == 0 {
		return false
	}
	mounts, err := find(path)
	return err == nil && slices.Contains(asked, any(mounts[0].ID))
}

// hang notes that a child did not answer in time.
func hang(c *disposable.Child, mount int) {
	waiting.Store(c, mount)
	go func() {
		<-c.Ended()
		waiting.Delete(c)
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
