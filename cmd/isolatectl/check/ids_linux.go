// SPDX-License-Identifier: Apache-2.0

package check

import (
	"strings"

	"github.com/isolate-shim/isolate/idmap/pool"
	"github.com/isolate-shim/isolate/shim/config"
)

// fewSlots is when a host runs out of ids before it runs out of anything else:
// the kubelet runs 110 pods by default.
const fewSlots = 110

// ids checks the ranges that containers get their ids from.
func ids(r *Report, cfg config.Config) {
	const what = "host ids"
	resolved, err := pool.Resolve(cfg.IDs.Spans(), pool.FilesIn("/etc"))
	if err != nil {
		r.bad(Failed, what, "choose ids that nobody else has, in ids.pool or in lines of user isolate in /etc/subuid and /etc/subgid", "%v", err)
		return
	}
	for _, w := range resolved.Warnings {
		r.bad(Degraded, what, "mend or remove the line, whose ids nobody can use", "%s", w)
	}
	spans, origin := resolved.Spans, resolved.Origin
	slots := 0
	var texts []string
	for _, s := range spans {
		slots += s.Slots(cfg.IDs.Size)
		texts = append(texts, s.String())
	}
	list := strings.Join(texts, ", ")
	switch {
	case slots == 0:
		r.bad(Failed, what, "make the range larger, or ids.size smaller", "%s (%s): no range of %d ids fits", list, origin, cfg.IDs.Size)
	case slots < fewSlots:
		r.bad(Degraded, what, "add ranges to ids.pool, or to the lines of user isolate in /etc/subuid and /etc/subgid", "%s (%s): only %s at a time", list, origin, count(slots, "container"))
	default:
		r.ok(what, "%s (%s): %s of %d ids", list, origin, count(slots, "range"), cfg.IDs.Size)
	}
}
