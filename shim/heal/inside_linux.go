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

	"github.com/containerd/log"

	"github.com/isolate-shim/isolate/internal/linux/disposable"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

// leastPatience is how long a child may work in a container's mounts, apart from asking
// servers. Unless a file system holds it up it takes a few ms.
const leastPatience = 2 * time.Second

// maxAgain bounds how long a container is left alone once its file systems no longer
// hold up a child.
const maxAgain = 10 * time.Minute

// errHeldUp means that a file system of the container's own holds up a child that
// looks something up there.
var errHeldUp = errors.New("a file system in it does not answer")

// errGone means that an lxcfs has died while its files were attached.
var errGone = errors.New("lxcfs has died meanwhile")

// delay is why and until when a container is left alone: a child waits for a file system
// or a server of its files.
type delay struct {
	failures int
	until    time.Time
	child    *disposable.Child // one that is left behind, nil for none
}

// late tells whether a file system held up a child.
func (d *delay) late() bool { return d.failures > 0 }

// over tells whether the container may be worked in. At most one child of a container
// is left behind.
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

// reset notes that no file system held up a child.
func (d *delay) reset() { d.failures, d.until = 0, time.Time{} }

// add notes that a file system held up a child.
func (d *delay) add(c *disposable.Child) {
	d.child = c
	d.until = time.Now().Add(min(again<<min(d.failures, 16), maxAgain))
	d.failures++
}

// inside is a mount namespace of a container, in which a disposable child works.
type inside struct {
	container *watched
	process   proc.ID
	places    places
}

// detach asks the servers of mounted files and detaches the files of dead ones, of the ended
// one if it does not answer, and, without asking, of those that are known to hang. It notes
// the verdicts, and returns how many files it detached. What the container changed
// meanwhile is left alone.
func (in inside) detach(ctx context.Context, mounted []lxcfs.MountedFile, ended lxcfs.Device, hung []lxcfs.Device, verdicts map[lxcfs.Device]verdict) (detached int, _ error) {
	if len(mounted) == 0 {
		return 0, nil
	}
	var errs []error
	q := request{Mounted: mounted, Ended: ended, Hung: hung, Patience: in.container.LXCFS.Timeout()}
	told := make([]bool, len(mounted))
	err := in.call(ctx, q, nil, func(a answer) {
		told[a.Entry] = told[a.Entry] || a.Verdict == 0
		switch m := mounted[a.Entry]; {
		case a.Verdict != 0:
			verdicts[m.Device] = a.Verdict
		case a.Failed != "":
			errs = append(errs, errors.New(a.Failed))
		case a.Left:
			log.G(ctx).WithField("file", m.Name).Debug("isolate: a file of lxcfs that does not answer is not on top")
		default:
			in.places.detached(m.Name)
			detached++
		}
	})
	for n, m := range mounted {
		if err != nil && !told[n] { // it may have been detached; else attach finds it there
			in.places.detached(m.Name)
		}
	}
	return detached, errors.Join(append(errs, err)...)
}

// ask asks the servers of mounted files, and notes the verdicts.
func (in inside) ask(ctx context.Context, mounted []lxcfs.MountedFile, verdicts map[lxcfs.Device]verdict) error {
	if len(mounted) == 0 {
		return nil
	}
	q := request{Mounted: mounted, Leave: true, Patience: in.container.LXCFS.Timeout()}
	return in.call(ctx, q, nil, func(a answer) { verdicts[mounted[a.Entry].Device] = a.Verdict })
}

// attach puts files in their places, and returns how many. With [errGone] the others are
// still owed.
func (in inside) attach(ctx context.Context, files []lxcfs.File) (attached int, _ error) {
	if len(files) == 0 {
		return 0, nil
	}
	var q request
	var mounts []*os.File
	for _, f := range files {
		q.Attach, mounts = append(q.Attach, f.Name), append(mounts, f.Mount)
	}
	var errs []error
	gone := false
	err := in.call(ctx, q, mounts, func(a answer) {
		name := q.Attach[a.Entry]
		switch {
		case a.Gone:
			gone = true
			in.places.detached(name)
			return
		case a.Failed != "":
			errs = append(errs, fmt.Errorf("attach %s: %s", name, a.Failed))
			return
		case !a.Left:
			attached++
		}
		in.places.settled(name)
	})
	if err = errors.Join(append(errs, err)...); err == nil && gone {
		err = errGone
	}
	return attached, err
}

// call has a child do what is requested, and calls done for each answer. It does not wait
// for a file system: overlayfs asks a FUSE server with the credentials of whoever mounted
// the overlay, so that also the host's root waits for a server of the container's.
func (in inside) call(ctx context.Context, q request, files []*os.File, done func(answer)) error {
	q.Process = in.process
	fail := func(err error) error { return fmt.Errorf("in the mounts of process %d: %w", q.Process.PID, err) }
	limit := q.Patience + leastPatience
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
		data, _, err := disposable.Receive(c.Conn, maxAnswer, "") // no files
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			in.container.delay.add(c)
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
		case a.Verdict == hung:
			in.container.delay.child = c
		}
		done(a)
	}
}
