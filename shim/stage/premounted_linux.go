// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/mount"
)

// replace mounts the container's own overlay at the target, and in the place of the
// one that the caller has mounted; the record must name both, the one in the caller's
// place by the replacement's source.
//
// The caller's goes first, so that the two are never there at the same time: the
// kernel would warn of undefined behaviour, and rightly. What is between is called
// by the same source, and the record's clean-up gives the caller its own back.
func (m *rootfsMount) replace(ctx context.Context) error {
	if err := m.replaceCallers(ctx); err != nil {
		return refusal(fmt.Sprintf("rootfs %q", m.Replacement.Path), err)
	}
	return nil
}

func (m *rootfsMount) replaceCallers(ctx context.Context) error {
	userns, err := m.Userns(m.ids)
	if err != nil {
		return err
	}
	owner, err := m.root()
	if err != nil {
		return err
	}
	o, err := m.Premounted.Layers()
	if err != nil {
		return err
	}
	o.Attrs |= m.attrs()
	moved, err := m.hasMoved()
	if err != nil {
		return err
	}
	if moved { // by a kernel that could not map them
		if err := m.restore(ctx); err != nil {
			return err
		}
	}
	if err := m.Premounted.Clear(m.Replacement.Source); err != nil {
		return err
	}
	built, err := o.BuildAgain(userns, owner, m.Method, m.Replacement.Source)
	if err != nil {
		return err
	}
	defer built.Close()
	// The runtime goes by a path that the container's root may use: neither
	// dockerd's directories nor those of a containerd that it has started are.
	again, err := m.kernel.CloneTree(int(built.Fd()), "", mount.CloneOptions{Propagation: unix.MS_PRIVATE})
	if err != nil {
		return err
	}
	defer again.Close()
	if err := m.kernel.Attach(again, m.target); err != nil {
		return err
	}
	return m.Premounted.Fill(m.Replacement.Source, built)
}
