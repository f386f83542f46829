// SPDX-License-Identifier: Apache-2.0

package ending

import (
	"context"
	"slices"

	"github.com/containerd/log"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/shim/member"
	"github.com/isolate-shim/isolate/shim/record"
)

// Of describes the container of a record.
func Of(ctx context.Context, r *record.Record) Container {
	c := Container{ID: r.ID, Member: r.Member(), Peers: func() []member.Container { return peers(ctx, r) }}
	if r.Init != nil {
		c.First = *r.Init
	}
	return c
}

// peers lists the other containers with ids of this one: the containers of its pod.
func peers(ctx context.Context, of *record.Record) []member.Container {
	records, err := record.List()
	if err != nil {
		log.G(ctx).WithError(err).Warn("isolate: records of other containers")
	}
	var all []member.Container
	for _, r := range records {
		if (r.Namespace != of.Namespace || r.ID != of.ID) && overlap(r.Mapping.UIDs, of.Mapping.UIDs) {
			all = append(all, r.Member())
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
