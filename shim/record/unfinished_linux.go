// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// tryFor is how long the lock of an unfinished container is waited for: nobody waits
// for us, and who has it may be the `delete` that is killed when its 5 s are over.
const tryFor = 10 * time.Second

// unfinished is the path of the link to the record of a container that is being
// deleted. A name of containerd has no colon.
func (r *Record) unfinished() string {
	return filepath.Join(r.stateRoot(), ".unfinished", r.Namespace+":"+r.ID)
}

// Unfinished notes, before the container is undone, that it is to be: for others, if
// the caller is killed or the container does not end. Cleanup takes that back.
//
// The note is a second link to the record, so that it is not taken for one about a
// later container with this id. One without a record is not noted.
func (r *Record) Unfinished() error {
	d, err := r.Dir()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(d, file)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	link := r.unfinished()
	_ = os.Remove(link) // of an earlier container
	for range 10 {      // the directory goes with the last note, perhaps right now
		if err = os.MkdirAll(filepath.Dir(link), 0o700); err == nil {
			err = os.Link(filepath.Join(d, file), link)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("note that container %q is to be undone: %w", r.ID, err)
	}
	return nil
}

// finished removes the note.
func (r *Record) finished() error {
	link := r.unfinished()
	err := os.Remove(link)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_ = os.Remove(filepath.Dir(link)) // with the last one
	return err
}

// EachUnfinished calls undo, with the lock of its id, for each container that
// somebody has not undone in full.
func EachUnfinished(ctx context.Context, undo func(*Record)) error {
	return eachUnfinished(ctx, Root, undo)
}

func eachUnfinished(ctx context.Context, root string, undo func(*Record)) error {
	entries, err := os.ReadDir(filepath.Join(root, ".unfinished"))
	if errors.Is(err, fs.ErrNotExist) { // nearly always
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		r := &Record{root: root}
		r.Namespace, r.ID, _ = strings.Cut(e.Name(), ":")
		errs = append(errs, r.finish(ctx, undo))
	}
	return errors.Join(errs...)
}

func (r *Record) finish(ctx context.Context, undo func(*Record)) error {
	d, err := r.Dir()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	unlock, err := lock(ctx, r.root, r.Namespace, r.ID)
	if err != nil {
		return nil // somebody is at it
	}
	defer unlock()
	note, err := os.Lstat(r.unfinished())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	is, isErr := os.Lstat(filepath.Join(d, file))
	if err == nil && (isErr != nil || !os.SameFile(note, is)) {
		return r.finished() // a later container has its id
	}
	whole, err := load(r.root, r.Namespace, r.ID)
	if err != nil {
		return errors.Join(err, r.finished())
	}
	undo(whole)
	return nil
}
