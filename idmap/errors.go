// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNotIDMappable means that the file system, or with a recursive clone
	// one below it, cannot be mounted with an id mapping on this kernel.
	ErrNotIDMappable = errors.New("file system cannot be id-mapped")

	// ErrNotSupported means that the running kernel, as it is built and set
	// up, lacks a feature. It is the conclusive negative answer of a [Probe].
	ErrNotSupported = errors.New("not supported")

	// ErrReadOnly means that the kernel made an overlay read-only although it
	// has an upper layer and read-only was not asked for.
	ErrReadOnly = errors.New("overlay came out read-only")

	// ErrDetached means that somebody else has unmounted a mount in between.
	ErrDetached = errors.New("not mounted any more")

	// ErrMounted means that a path inside a container already is a mount point
	// and the caller did not ask to replace what is there.
	ErrMounted = errors.New("something is mounted there already")

	// ErrNotThere means that a mount inside a container is not, or not any more,
	// on top of the path where it was seen.
	ErrNotThere = errors.New("another mount is there now")

	// ErrInUserNamespace means that this process is no root of the host's, since
	// it runs in a user namespace: there its kernel maps what was mounted there,
	// and gives out the ids of that namespace alone.
	ErrInUserNamespace = errors.New("isolate itself runs in a user namespace, as inside a container; it works on the host only, so use runc or crun inside")

	// ErrWrongFileSystem means that a path inside a container is not on the
	// kind of file system the caller expects.
	ErrWrongFileSystem = errors.New("unexpected file system")
)

// NotIDMappableError names the mount that has no id mapping. It matches
// [ErrNotIDMappable].
type NotIDMappableError struct {
	Path   string // what was to be cloned
	FSType string // as in mountinfo, "" if unknown
	Kernel string // release of the running kernel
}

// Error names object, file system and kernel.
func (e *NotIDMappableError) Error() string {
	fs := e.FSType
	if fs == "" {
		fs = "this file system or one mounted below it"
	}
	return fmt.Sprintf("id-map %q: %s cannot be id-mapped by kernel %s%s", e.Path, fs, e.Kernel, needs(e.Kernel, mappableSince[e.FSType]))
}

// Is matches [ErrNotIDMappable].
func (e *NotIDMappableError) Is(target error) bool { return target == ErrNotIDMappable }

// Attempt is one way of building an overlay and why it did not work.
type Attempt struct {
	Method Method
	Err    error
}

// UnbuildableError says that no method builds this overlay with id-mapped
// layers here. It carries what a message to the user needs: the kernel, the
// file system of the layers and the kernel's own reasons.
type UnbuildableError struct {
	Kernel   string // release of the running kernel
	FSType   string // file system of the writable layer, or of the top one
	Path     string // that layer
	Attempts []Attempt
}

// Error names kernel, file system and every reason.
func (e *UnbuildableError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kernel %s cannot build an overlay from id-mapped %s layers at %q%s", e.Kernel, e.FSType, e.Path, needs(e.Kernel, layersSince))
	for _, a := range e.Attempts {
		fmt.Fprintf(&b, "; method %s: %v", a.Method, a.Err)
	}
	return b.String()
}

// Unwrap returns the reasons.
func (e *UnbuildableError) Unwrap() []error {
	errs := make([]error, len(e.Attempts))
	for i, a := range e.Attempts {
		errs[i] = a.Err
	}
	return errs
}
