// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/isolate-shim/isolate/internal/linux/disposable"
	"github.com/isolate-shim/isolate/internal/linux/proc"
)

// leastPatience is how long a child may work in a container's mounts if lxcfs has
// less time. Unless a file system holds it up it takes a few ms.
const leastPatience = 2 * time.Second

// maxAgain bounds how long a container is left alone once its file systems no longer
// hold up a child.
const maxAgain = 10 * time.Minute

// errHeldUp means that a file system of the container's own holds up a child that
// looks something up there.
var errHeldUp = errors.New("a file system in it does not answer")

// delay is why and until when a container is left alone.
type delay struct {
	failures int
	until    time.Time
	child    *disposable.Child // the one that was held up, nil for none
}

// late tells whether a child was held up.
func (d *delay) late() bool { return d.failures > 0 }

// over tells whether the container may be worked in. There is never more than one
// child of a container left behind.
func (d *delay) over() bool {
	if d.child != nil {
		select {
		case <-d.child.Ended():
			d.child = nil
		default:
			return false
		}
	}
	return !time.Now().Before(d.until)
}

// add notes that a child was held up.
func (d *delay) add(c *disposable.Child) {
	d.child = c
	d.until = time.Now().Add(min(again<<min(d.failures, 16), maxAgain))
	d.failures++
}

// inside has a child do what is requested in the container's mounts, and calls done
// for each answer, with the file if there is one. It does not wait for a file system:
// overlayfs asks a FUSE server with the credentials of whoever mounted the overlay,
// so that also the host's root waits for a server of the container's.
func (m *watched) inside(ctx context.Context, q request, files []*os.File, done func(answer, *os.File)) error {
	if !m.delay.over() {
		return errHeldUp
	}
	fail := func(err error) error { return fmt.Errorf("in the mounts of process %d: %w", q.Process.PID, err) }
	limit := max(m.LXCFS.Timeout(), leastPatience)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	data, err := json.Marshal(q)
	if err != nil {
		return fail(err)
	}
	c, err := disposable.Start(ctx, bytes.NewReader(data), files, childName, (limit + disposable.Grace).String())
	if err != nil {
		return fail(err)
	}
	defer c.Close() //nolint:errcheck // nothing was written
	for {
		data, files, err := disposable.Receive(c.Conn, maxAnswer, "file of a container")
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			m.delay.add(c)
			return fail(fmt.Errorf("%w within %v; the container is left alone until it does", errHeldUp, limit))
		}
		var a answer
		if err == nil {
			err = json.Unmarshal(data, &a)
		}
		switch {
		case err != nil:
			return fail(err)
		case a.Ended:
			return fail(proc.ErrEnded)
		case a.End && a.Failed != "":
			return errors.New(a.Failed) // says where
		case a.End:
			return nil
		case len(files) > 0:
			done(a, files[0])
		default:
			done(a, nil)
		}
	}
}
