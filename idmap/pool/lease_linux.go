// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/flock"
	"github.com/isolate-shim/isolate/internal/linux/proc"
)

// Lease is a range of host ids that belongs to the holder until it calls Release
// or dies.
type Lease struct {
	idmap.Span // the zero value for an adopted mapping

	// One slot file for each SlotSize ids, or the one file of an adopted mapping. A
	// file is locked as long as it is open.
	files []*os.File
}

// Mapping returns the mapping of container ids 0 to Size-1 to the lease.
func (l *Lease) Mapping() idmap.Mapping { return idmap.Contiguous(l.First, l.Size) }

// Bound records that a live process, the container's init, runs with the leased
// ids, and cgroups that were not known when the lease was taken. From then on
// the range stays reserved until they are gone, even if the holder dies.
//
// It is an error if the pool's files were removed since the lease was taken: until the
// process had the ids, another container could be given them.
func (l *Lease) Bound(pid int, cgroups ...string) error {
	for _, f := range l.files {
		var stat unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
			return &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
		}
		if stat.Nlink == 0 {
			return fmt.Errorf("%s was removed while the container was made, so another container may have the same host ids: start it again", f.Name())
		}
	}
	init, err := proc.Open(pid)
	if err != nil {
		return fmt.Errorf("bind ids from %d on: %w", l.First, err)
	}
	err = errors.Join(l.append(line{Bound: &bound{Init: init.ID(), Cgroups: cgroups}}), init.Close())
	if err != nil {
		return fmt.Errorf("bind ids from %d on to process %d: %w", l.First, pid, err)
	}
	return nil
}

// Release gives the ids back. If a process still has them it returns an error
// that matches ErrInUse, and the range stays reserved until the process is gone. If
// another container shares the ids, it keeps them. Release must be called once; a
// second call does nothing.
func (l *Lease) Release(ctx context.Context) error {
	var errs []error
	for _, f := range l.files {
		if err := flock.Exclusive(f); errors.Is(err, flock.ErrLocked) {
			continue // shared; the last holder gives it back
		}
		r, ok, err := readRecord(f)
		switch why := r.inUse(ctx); {
		case err != nil:
			errs = append(errs, err)
		case ok && why != "":
			errs = append(errs, fmt.Errorf("%w: %s", ErrInUse, why))
		default:
			errs = append(errs, f.Truncate(0))
		}
	}
	if err := errors.Join(append(errs, l.close())...); err != nil {
		return fmt.Errorf("release ids from %d on: %w", l.First, err)
	}
	return nil
}

func (l *Lease) close() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, flock.Close(f))
	}
	l.files = nil
	return errors.Join(errs...)
}

func (l *Lease) claim(c claim) error {
	for _, f := range l.files {
		if err := f.Truncate(0); err != nil {
			return err
		}
	}
	return l.append(line{Claim: &c})
}

// mostHints bounds, in bytes, a file that many containers share one after the other.
// The processes that its lines name are also found by their ids.
const mostHints = 64 << 10

// append adds a line to every slot file. A line that could be written only in part
// is taken back, since the lines behind it would be lost with it.
func (l *Lease) append(add line) error {
	b, err := add.encode()
	if err != nil {
		return err
	}
	for _, f := range l.files {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if info.Size() > mostHints {
			continue
		}
		if _, err := f.Write(b); err != nil {
			return errors.Join(err, f.Truncate(info.Size()))
		}
	}
	return nil
}
