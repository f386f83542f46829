// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/chown"
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
	ids, err := m.settle(ctx, o.Upper)
	if err != nil {
		return err
	}
	userns, err := m.Userns(ids)
	if err != nil {
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

// settle makes an upper layer ready for a container: what the host's programs have
// written there, if the machine has crashed since, gets its owners. It returns the ids to
// map the layers with, and marks the layer if the host's are among them.
func (m *rootfsMount) settle(ctx context.Context, upper string) (idmap.Mapping, error) {
	if upper == "" {
		return m.ids, nil
	}
	report, err := m.Store.Settle(ctx, upper)
	if err != nil {
		return m.ids, err
	}
	if report.Moved > 0 {
		log.G(ctx).WithField("rootfs", upper).Infof("isolate: owners of what was copied into the container: %v", report)
	}
	ids, ok := m.ids.WithHost()
	if !ok {
		return m.ids, nil
	}
	err = chown.Unsettle(upper)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return m.ids, nil
	}
	return ids, err
}
