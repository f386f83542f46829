// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
)

// control is the file that enables controllers for the children.
const control = "cgroup.subtree_control"

// leaf moves the processes to a leaf group and enables all available controllers for
// the children. It returns whether it has moved them, and the controllers that are then
// enabled. It does nothing if no controller is available.
//
// The leaf belongs to the container's root, as if root had made it, except for its
// limits: they stay with the host, as the container's own limits do, since no program
// inside has a reason to limit the leaf.
func (g *group) leaf(processes []int, owner idmap.Owner) (moved bool, enabled []string, _ error) {
	content, err := g.read("cgroup.controllers")
	if err != nil || content == "" {
		return false, nil, err
	}
	if err := unix.Mkdirat(int(g.Fd()), leafName, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return false, nil, &os.PathError{Op: "mkdirat", Path: leafName, Err: err}
	}
	dir, err := openBelow(g.File, leafName, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false, nil, err
	}
	leaf := &group{File: dir, unified: true}
	defer leaf.Close()
	for _, p := range processes {
		err := leaf.write("cgroup.procs", strconv.Itoa(p))
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return false, nil, fmt.Errorf("move process %d to %q: %w", p, leafName, err)
		}
	}
	errs := g.enable(strings.Fields(content))
	// Only now has the leaf the files of its controllers.
	errs = append(errs, leaf.chown(owner))
	content, err = g.read(control)
	return true, strings.Fields(content), errors.Join(append(errs, err)...)
}

// enable enables controllers for the children: all in one write, and if that fails, one
// by one. A single controller can be unavailable for a reason of its own (cpu with
// real-time tasks), and the others are still wanted.
func (g *group) enable(controllers []string) (errs []error) {
	if g.write(control, "+"+strings.Join(controllers, " +")) == nil {
		return nil
	}
	for _, c := range controllers {
		if err := g.write(control, "+"+c); err != nil {
			errs = append(errs, fmt.Errorf("enable controller %q: %w", c, err))
		}
	}
	return errs
}
