// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/isolate-shim/isolate/cmd/isolatectl/metrics"
	"github.com/isolate-shim/isolate/cmd/isolatectl/orphan"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/version"
)

func metricsCommand() *cli.Command {
	return &cli.Command{
		Name:  "metrics",
		Usage: "print, or serve, what a fleet watches of this host, as OpenMetrics text",
		Description: "Without --listen it prints once, for the textfile collector of Prometheus' node exporter. docs/metrics.md\n" +
			"lists the names.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config-dir", Usage: "the host's configuration", Value: config.Dir},
			&cli.StringFlag{Name: "listen", Usage: "serve http://`ADDRESS`/metrics, on loopback only, as 127.0.0.1:9469"},
		},
		Before: rootOnly,
		Action: func(ctx context.Context, c *cli.Command) error {
			take := func(ctx context.Context) (metrics.Snapshot, error) { return snapshot(ctx, c.String("config-dir")) }
			if address := c.String("listen"); address != "" {
				l, err := metrics.Listen(ctx, address)
				if err != nil {
					return err
				}
				return metrics.Serve(ctx, l, take)
			}
			s, err := take(ctx)
			if err != nil {
				return err
			}
			return s.Write(c.Root().Writer)
		},
	}
}

// snapshot finds out all numbers. What one record or one daemon does not tell is not
// counted.
func snapshot(ctx context.Context, configDir string) (metrics.Snapshot, error) {
	s := metrics.Snapshot{Version: version.Version, Revision: version.Revision, Containers: map[metrics.Kind]int{}, Ranges: map[string]int{}}
	cfg, _, err := config.Load(configDir)
	if err != nil {
		return s, err
	}
	records, _ := record.List()
	list, _ := statuses(records)
	rootfs := map[[2]string]string{}
	for _, r := range records {
		rootfs[[2]string{r.Namespace, r.ID}] = rootfsOf(r)
		s.Stages = append(s.Stages, r.Stages)
	}
	for _, c := range list {
		s.Containers[metrics.Kind{Runtime: filepath.Base(c.Runtime), Rootfs: rootfs[[2]string{c.Namespace, c.ID}], Mode: c.Mode, State: c.State}]++
		if len(c.Warnings) > 0 {
			s.Degraded++
		}
	}
	report, err := idsIn(ctx, configDir, record.IDs(), false)
	if err != nil {
		return s, err
	}
	s.Limit = report.slots
	for _, r := range report.Ranges {
		s.Ranges[r.State]++
	}
	probe := lxcfs.StartProbe(ctx, cfg.LXCFS)
	defer probe.Close()
	if _, err := probe.Result(); !errors.Is(err, lxcfs.ErrOff) {
		up := err == nil
		s.LxcfsUp = &up
	}
	if found, err := orphans(ctx, configDir, false); err == nil {
		n := len(slices.DeleteFunc(found, func(o orphan.Orphan) bool { return o.ID == "" }))
		s.Orphans = &n
	}
	return s, nil
}

// rootfsOf says who has mounted the root file system.
func rootfsOf(r *record.Record) string {
	switch {
	case r.Premounted != nil:
		return "replaced"
	case r.Rootfs:
		return "mounted"
	}
	return "caller"
}
