// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"context"
	"fmt"
)

// Group is a group that [Below] visits, for as long as the visit lasts.
type Group struct {
	at   int
	name string
}

// Read reads a file of the group.
func (g Group) Read(file string) (string, error) { return read(g.at, g.name, file) }

// Write writes to a file of the group by one write(2).
func (g Group) Write(file, text string) error { return write(g.at, g.name, file, text) }

// Below visits the groups below a group, each before those in it. That a visit finds a
// group or a file gone is no error.
func Below(ctx context.Context, dir string, visit func(Group) error) error {
	top, err := open(dir)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("visit groups: %w", err)
	}
	defer top.Close()
	enter := func(at int, name string) error {
		if name == "." {
			return nil
		}
		return visit(Group{at: at, name: name})
	}
	if err := walk(ctx, top, visitor{enter: enter}); err != nil {
		return fmt.Errorf("visit groups below %s: %w", dir, err)
	}
	return nil
}
