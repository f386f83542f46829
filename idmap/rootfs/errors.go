// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/isolate-shim/isolate/internal/linux/feature"
)

// ErrReadOnly means that the kernel made an overlay read-only although it
// has an upper layer and read-only was not asked for.
var ErrReadOnly = errors.New("overlay came out read-only")

// layersSince is the first Linux that takes id-mapped layers for an overlay.
const layersSince = "5.19"

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
	fmt.Fprintf(&b, "kernel %s cannot build an overlay from id-mapped %s layers at %q%s", e.Kernel, e.FSType, e.Path, feature.Needs(e.Kernel, layersSince))
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
