// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"errors"
	"fmt"

	"github.com/isolate-shim/isolate/idmap"
)

// ErrBusy means that a snapshot cannot be shifted now: a container runs with the
// ids that it has.
var ErrBusy = errors.New("rootfs is in use with other ids")

// BusyError names the snapshot and who uses it. It matches [ErrBusy].
type BusyError struct {
	Path  string
	Owner string // "namespace/id"
	Span  idmap.Span
}

// Error names both, and what to do.
func (e *BusyError) Error() string {
	return fmt.Sprintf("rootfs %q is in use by container %q, which has the ids %s: on disk it can have those of one container only; stop that one first, or give each a copy of its own",
		e.Path, e.Owner, e.Span)
}

// Is matches [ErrBusy].
func (e *BusyError) Is(target error) bool { return target == ErrBusy }
