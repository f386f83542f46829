// SPDX-License-Identifier: Apache-2.0

package ending

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/log"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/idmap/pool"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/temporary"
)

// Of describes the container of a record.
func Of(ctx context.Context, r *record.Record) Container {
	c := Container{ID: r.ID, Member: r.Member(), Peers: func() []Peer { return peers(ctx, r) }}
	if r.Init != nil {
		c.First = *r.Init
	}
	return c
}

// Undo ends the container of a record within a time, and undoes it. The caller must
// have reserved the id ([record.Lock]). alive tells why the container may not have
// ended: then Undo undoes all that it can, and the record stays. left tells what was
// not undone.
func Undo(ctx context.Context, r *record.Record, within time.Duration) (alive, left error) {
	ending, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if alive = End(ending, Of(ctx, r)); alive == nil {
		alive = r.StopRuntime(ctx)
	}
	return alive, r.CleanupAfter(alive, restore) //nolint:contextcheck // it goes on when the caller gives up
}

// UndoOrphan is Undo for a container whose shim is gone. It also gives back the ids that
// the shim held, which a shim does itself.
func UndoOrphan(ctx context.Context, r *record.Record, within time.Duration) (alive, left error) {
	alive, left = Undo(ctx, r, within)
	if alive != nil {
		return alive, left
	}
	of := pool.Owner{Namespace: r.Namespace, ID: r.ID}
	return nil, errors.Join(left, pool.Forget(ctx, record.IDs(), of, r.Mapping))
}

// restore gives the caller's rootfs back.
func restore(p *record.Premounted) error {
	return (*rootfs.Replacement)(p).Restore(func(upper string) error {
		// It must come to its end: the caller reads the layer next.
		_, err := chown.NewStore(chown.Dir).Settle(context.Background(), upper)
		return err
	})
}

// sweepTimeout bounds one attempt of Sweep to end a container.
const sweepTimeout = 10 * time.Second

// Sweep undoes the containers that `delete` has not undone in its time; see the
// package's documentation.
func Sweep(ctx context.Context) {
	err := record.EachUnfinished(ctx, func(r *record.Record) {
		alive, left := UndoOrphan(ctx, r, sweepTimeout)
		if err := errors.Join(alive, left); err != nil {
			log.G(ctx).WithError(err).Warnf("isolate: container %q in namespace %q is deleted, but was not cleaned up in full; the next start of a container tries again", r.ID, r.Namespace)
			return
		}
		log.G(ctx).Infof("isolate: finished the clean-up of container %q in namespace %q", r.ID, r.Namespace)
	})
	if err := errors.Join(err, temporary.Sweep(record.Root)); err != nil {
		log.G(ctx).WithError(err).Warn("isolate: cannot finish the clean-up of deleted containers")
	}
}

// peers lists the other containers that have ids of this one: the containers of its pod.
func peers(ctx context.Context, of *record.Record) []Peer {
	records, err := record.List()
	if err != nil {
		log.G(ctx).WithError(err).Warn("isolate: cannot read the records of all other containers")
	}
	var all []Peer
	for _, r := range records {
		if (r.Namespace != of.Namespace || r.ID != of.ID) && overlap(r.Mapping.UIDs, of.Mapping.UIDs) {
			all = append(all, Peer{Name: fmt.Sprintf("%q in namespace %q", r.ID, r.Namespace), Container: r.Member()})
		}
	}
	return all
}

// overlap tells whether two mappings have a host id in common.
func overlap(a, b []idmap.Range) bool {
	return slices.ContainsFunc(a, func(x idmap.Range) bool {
		return slices.ContainsFunc(b, func(y idmap.Range) bool {
			return x.Span().Overlaps(y.Span())
		})
	})
}
