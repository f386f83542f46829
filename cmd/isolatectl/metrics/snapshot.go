// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"io"
	"maps"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/proto"

	"github.com/isolate-shim/isolate/shim/record"
)

// Snapshot is a host at one moment. What is not known is left out of the text.
type Snapshot struct {
	Version, Revision string
	Containers        map[Kind]int
	// Stages are those of making each container.
	Stages []record.Stages
	// Degraded are the containers that run without something.
	Degraded int
	// Ranges are those of host ids by state, Limit how many there are in the pool.
	Ranges map[string]int
	Limit  int
	// LxcfsUp tells whether lxcfs answers; nil if it is switched off.
	LxcfsUp *bool
	// Orphans is how much state `isolatectl gc` finds; nil if that cannot be told.
	Orphans *int
}

// Kind is what containers are counted by.
type Kind struct{ Runtime, Rootfs, Mode, State string }

// family is one metric.
type family struct {
	name, help string
	samples    []sample
}

type sample struct {
	labels [][2]string
	value  float64
}

// families are the metrics of a snapshot. They are the only place that knows names.
func (s Snapshot) families() []family {
	one := func(n int) []sample { return []sample{{value: float64(n)}} }
	all := []family{
		{"isolate_build_info", "The version of isolatectl.", []sample{{[][2]string{{"version", s.Version}, {"revision", s.Revision}}, 1}}},
		{name: "isolate_containers", help: "Containers that isolate has made and not yet undone."},
		{"isolate_containers_degraded", "Containers that run without something; isolatectl ps names it.", one(s.Degraded)},
		{name: "isolate_id_ranges", help: "Ranges of host ids that are not free."},
		{"isolate_id_ranges_limit", "Ranges of host ids in the pool.", one(s.Limit)},
		{name: "isolate_lxcfs_up", help: "Whether lxcfs answers."},
		{name: "isolate_create_seconds", help: "What each stage of making a container took, the median of the containers that there are."},
		{name: "isolate_orphans", help: "Containers of which something is left although containerd does not know them; isolatectl gc lists them."},
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.Containers), func(a, b Kind) int {
		return cmp.Or(cmp.Compare(a.Runtime, b.Runtime), cmp.Compare(a.Rootfs, b.Rootfs), cmp.Compare(a.Mode, b.Mode), cmp.Compare(a.State, b.State))
	}) {
		labels := [][2]string{{"runtime", k.Runtime}, {"rootfs", k.Rootfs}, {"mode", k.Mode}, {"state", k.State}}
		all[1].samples = append(all[1].samples, sample{labels, float64(s.Containers[k])})
	}
	for _, state := range slices.Sorted(maps.Keys(s.Ranges)) {
		all[3].samples = append(all[3].samples, sample{[][2]string{{"state", state}}, float64(s.Ranges[state])})
	}
	if s.LxcfsUp != nil {
		up := 0
		if *s.LxcfsUp {
			up = 1
		}
		all[5].samples = one(up)
	}
	if s.Orphans != nil {
		all[7].samples = one(*s.Orphans)
	}
	took := map[string][]time.Duration{}
	for _, stage := range slices.Concat(s.Stages...) {
		took[stage.Name] = append(took[stage.Name], stage.Took)
	}
	for _, stage := range slices.Sorted(maps.Keys(took)) {
		slices.Sort(took[stage])
		median := took[stage][len(took[stage])/2]
		all[6].samples = append(all[6].samples, sample{[][2]string{{"stage", stage}}, median.Seconds()})
	}
	return all
}

// ContentType is that of the text, for HTTP.
const ContentType = "application/openmetrics-text; version=1.0.0; charset=utf-8"

// Write writes the text.
func (s Snapshot) Write(w io.Writer) error {
	for _, f := range s.families() {
		if len(f.samples) == 0 {
			continue
		}
		m := &dto.MetricFamily{Name: &f.name, Help: &f.help, Type: dto.MetricType_GAUGE.Enum()}
		for _, sample := range f.samples {
			metric := &dto.Metric{Gauge: &dto.Gauge{Value: proto.Float64(sample.value)}}
			for _, l := range sample.labels {
				metric.Label = append(metric.Label, &dto.LabelPair{Name: proto.String(l[0]), Value: proto.String(l[1])})
			}
			m.Metric = append(m.Metric, metric)
		}
		if _, err := expfmt.MetricFamilyToOpenMetrics(w, m); err != nil {
			return err
		}
	}
	_, err := expfmt.FinalizeOpenMetrics(w)
	return err
}
