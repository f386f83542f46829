// SPDX-License-Identifier: Apache-2.0

package orphan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/isolate-shim/isolate/idmap/pool"
	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
	"github.com/isolate-shim/isolate/shim/ending"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/temporary"
)

// Orphan is the state of one container of which containerd knows nothing, or the
// temporary files of a shim that was killed.
type Orphan struct {
	Namespace string `json:"namespace,omitempty"`
	ID        string `json:"id,omitempty"`
	// Files is the directory of a shim's temporary files, of whichever container.
	Files string `json:"files,omitempty"`
	// Kept says why it cannot be removed, "" if it can.
	Kept string `json:"kept,omitempty"`
	// Removed is set if it was undone.
	Removed bool `json:"removed"`
}

// lockPatience is how long the lock of an id is waited for. Who has it makes or undoes
// the container, which is no orphan then.
const lockPatience = 50 * time.Millisecond

// undoLimit bounds the undoing of one container.
const undoLimit = 10 * time.Second

// Collector looks for orphans.
type Collector struct {
	// IDs are the ranges of host ids that have an owner, as package pool lists them.
	IDs []pool.Entry
	// Remove is set if orphans are to be undone.
	Remove bool
}

// Run returns the containers that containerd does not know any more, and what killed
// shims have left of temporary files. What could not be
// looked at, or not be undone, is told beside the rest.
func (c Collector) Run(ctx context.Context) ([]Orphan, error) {
	found, errs := []Orphan{}, []error{}
	dirs, err := filepath.Glob(filepath.Join(record.Root, "*", "*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		namespace, id := filepath.Base(filepath.Dir(dir)), filepath.Base(dir)
		if strings.HasPrefix(namespace, ".") {
			continue
		}
		o, err := c.look(ctx, namespace, id)
		if err != nil {
			errs = append(errs, fmt.Errorf("container %s in namespace %s: %w", id, namespace, err))
		}
		if o != nil {
			found = append(found, *o)
		}
	}
	slices.SortFunc(found, func(a, b Orphan) int { return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.ID, b.ID)) })
	files, err := c.files()
	return append(found, files...), errors.Join(append(errs, err)...)
}

// files returns the temporary files of shims that were killed.
func (c Collector) files() ([]Orphan, error) {
	dirs, err := temporary.Left(record.Root)
	if c.Remove && len(dirs) > 0 {
		err = errors.Join(err, temporary.Sweep(record.Root))
	}
	var found []Orphan
	for _, dir := range dirs {
		_, gone := os.Lstat(dir)
		found = append(found, Orphan{Files: dir, Removed: errors.Is(gone, fs.ErrNotExist)})
	}
	return found, err
}

// look looks at one container; nil if containerd knows it, or somebody is at it.
func (c Collector) look(ctx context.Context, namespace, id string) (*Orphan, error) {
	// Before the lock is taken, so that what runs is left in peace.
	r, err := record.Load(namespace, id)
	if errors.Is(err, record.ErrNotFound) || err == nil && bundle(r) != "" {
		return nil, nil //nolint:nilnil // documented
	}
	if err != nil {
		return nil, err
	}
	locking, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	unlock, err := record.Lock(locking, namespace, id)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, nil //nolint:nilnil // somebody is at it
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	if r, err = record.Load(namespace, id); errors.Is(err, record.ErrNotFound) {
		return nil, nil //nolint:nilnil // undone meanwhile
	}
	if err != nil {
		return nil, err
	}
	o := &Orphan{Namespace: namespace, ID: id, Kept: c.facts(ctx, r).kept()}
	if o.Kept == "" && c.Remove {
		alive, left := ending.UndoOrphan(ctx, r, undoLimit)
		err = errors.Join(alive, left)
		o.Removed = err == nil
	}
	return o, err
}

// facts finds out about a container whose lock the caller has.
func (c Collector) facts(ctx context.Context, r *record.Record) Facts {
	f := Facts{Bundle: bundle(r)}
	switch alive, err := initAlive(r); {
	case err != nil:
		f.Unknown = err.Error()
	case alive:
		f.Alive = "its first process is alive"
	case r.Init == nil && r.Stateful():
		f.Unknown = "its first process is not known, and the runtime has state of it"
	}
	for _, dir := range r.Cgroups {
		switch populated, err := cgroupfs.Populated(ctx, dir); {
		case errors.Is(err, cgroupfs.ErrNotGroup):
		case err != nil:
			f.Unknown = err.Error()
		case populated:
			f.Alive = fmt.Sprintf("cgroup %q has processes", dir)
		}
	}
	for _, e := range c.IDs {
		// Before the ids of this one were given to another, they were proved free.
		others := e.Owner.ID != "" && (e.Owner.ID != r.ID || e.Owner.Namespace != r.Namespace)
		if r.Lease == nil || !e.Overlaps(*r.Lease) || others {
			continue
		}
		f.Held = f.Held || e.Held
		f.Alive = cmp.Or(f.Alive, e.InUse)
		if e.Err != nil {
			f.Unknown = e.Err.Error()
		}
	}
	return f
}

func initAlive(r *record.Record) (bool, error) {
	if r.Init == nil {
		return false, nil
	}
	return r.Init.Alive()
}

// bundle says why containerd may still call `delete`, "" if it will not: its directory of
// all bundles is there, and this one is not.
func bundle(r *record.Record) string {
	_, err := os.Lstat(r.Bundle)
	switch {
	case err == nil:
		return "containerd knows it"
	case !errors.Is(err, fs.ErrNotExist):
		return err.Error()
	}
	all := filepath.Dir(filepath.Dir(r.Bundle)) // the one between is of the namespace
	if _, err := os.Lstat(all); err != nil {
		return "the directory of containerd's bundles is not there: " + err.Error()
	}
	return ""
}
