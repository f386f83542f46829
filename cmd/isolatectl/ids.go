// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/urfave/cli/v3"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/pool"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/record"
)

// idReport is where ids come from and who has them.
type idReport struct {
	Pool   []string   `json:"pool"`
	Origin string     `json:"origin"`
	Size   uint32     `json:"size"` // of one container
	Ranges []idHolder `json:"ranges"`

	slots int // in the pool, of that size
}

// idHolder is one range that is, or was last, a container's.
type idHolder struct {
	First     idmap.HostID `json:"first"`
	Last      idmap.HostID `json:"last"`
	Namespace string       `json:"namespace"`
	ID        string       `json:"id"`
	State     string       `json:"state"`
	Reason    string       `json:"reason,omitempty"`
}

// The states of a range.
const (
	held     = "held"     // the container's shim lives
	reserved = "reserved" // it does not, and something of the container does
	free     = "free"     // the last owner is gone
	damaged  = "damaged"  // the record cannot be read; it stays reserved
	adopted  = "adopted"  // a container has the ids of its caller's choice
)

func idsCommand() *cli.Command {
	return &cli.Command{
		Name:  "ids",
		Usage: "print the pool of host ids and which container has which range",
		Description: "States: held (its shim lives), reserved (the shim is gone, something of the container is not),\n" +
			"free (the last owner is gone), damaged (its record cannot be read; it is not given out), adopted (the caller's\n" +
			"choice, as Kubernetes makes it for hostUsers: false).",
		Flags:  append(flags(), &cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "print free ranges too, with their last owner"}),
		Before: rootOnly,
		Action: func(ctx context.Context, c *cli.Command) error {
			report, err := idsIn(ctx, c.String("config-dir"), record.IDs(), c.Bool("all"))
			if err != nil {
				return err
			}
			w := c.Root().Writer
			if c.Bool("json") {
				return printJSON(w, report)
			}
			return report.write(w)
		},
	}
}

// idsIn reads the state in a directory, which need not exist.
func idsIn(ctx context.Context, configDir, stateDir string, all bool) (idReport, error) {
	cfg, _, err := config.Load(configDir)
	if err != nil {
		return idReport{}, err
	}
	resolved, err := pool.Resolve(cfg.IDs.Spans(), pool.FilesIn("/etc"))
	if err != nil {
		return idReport{}, err
	}
	report := idReport{Origin: string(resolved.Origin), Size: cfg.IDs.Size, Ranges: []idHolder{}}
	for _, s := range resolved.Spans {
		report.Pool = append(report.Pool, s.String())
		report.slots += s.Slots(cfg.IDs.Size)
	}
	p, err := openDir(stateDir, resolved.Spans)
	if err != nil || p == nil {
		return report, err
	}
	entries, err := p.List(ctx)
	if err != nil {
		return idReport{}, err
	}
	for _, e := range entries {
		if h := holder(e); all || h.State != free {
			report.Ranges = append(report.Ranges, h)
		}
	}
	taken, err := p.Adopted(ctx)
	if err != nil {
		return idReport{}, err
	}
	for _, e := range taken {
		h := holder(e)
		if h.State != damaged {
			h.State = adopted
		}
		report.Ranges = append(report.Ranges, h)
	}
	slices.SortStableFunc(report.Ranges, func(a, b idHolder) int { return cmp.Compare(a.First, b.First) })
	return report, nil
}

// openPool opens the pool of the host's configuration, if it has state in a directory; nil
// if not.
func openPool(configDir, stateDir string) (*pool.Pool, error) {
	cfg, _, err := config.Load(configDir)
	if err != nil {
		return nil, err
	}
	resolved, err := pool.Resolve(cfg.IDs.Spans(), pool.FilesIn("/etc"))
	if err != nil {
		return nil, err
	}
	return openDir(stateDir, resolved.Spans)
}

// openDir opens a pool that has state. Opening another would make its directory, and
// looking makes nothing.
func openDir(stateDir string, spans []idmap.Span) (*pool.Pool, error) {
	if _, err := os.Stat(stateDir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // documented
	}
	return pool.Open(stateDir, spans)
}

func holder(e pool.Entry) idHolder {
	h := idHolder{
		First: e.First, Last: idmap.HostID(e.End() - 1),
		Namespace: e.Owner.Namespace, ID: e.Owner.ID, State: free, Reason: e.InUse,
	}
	switch {
	case e.Err != nil:
		h.State, h.Reason = damaged, e.Err.Error()
	case e.Held:
		h.State = held
	case e.InUse != "":
		h.State = reserved
	}
	return h
}

func (r idReport) write(w io.Writer) error {
	// A tabwriter keeps the first error for Flush.
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(format string, args ...any) { _, _ = fmt.Fprintf(t, format, args...) }
	for _, span := range r.Pool {
		row("pool %s (%s), %d ids a container\n", span, r.Origin, r.Size)
	}
	if len(r.Ranges) == 0 {
		row("no range is in use\n")
		return t.Flush()
	}
	row("FIRST\tLAST\tNAMESPACE\tCONTAINER\tSTATE\tREASON\n")
	for _, h := range r.Ranges {
		row("%d\t%d\t%s\t%s\t%s\t%s\n", h.First, h.Last, h.Namespace, short(h.ID), h.State, h.Reason)
	}
	return t.Flush()
}
