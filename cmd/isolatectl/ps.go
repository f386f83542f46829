// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v3"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
	"github.com/isolate-shim/isolate/shim/record"
)

// containerStatus is one container, as its record has it.
type containerStatus struct {
	Namespace string `json:"namespace"`
	ID        string `json:"id"`
	// Name and Image are what its client says; "" if that does not run, or knows none.
	Name  string `json:"name,omitempty"`
	Image string `json:"image,omitempty"`
	// State is created until the first process exists, then running or paused, and
	// dead when it has ended and nobody has deleted the container yet; unknown if
	// the process cannot be looked at.
	State string `json:"state"`
	Mode  string `json:"mode"`
	// First is the host's id of the container's root.
	First    idmap.HostID `json:"first"`
	PID      int          `json:"pid,omitempty"`
	Runtime  string       `json:"runtime"`
	Warnings []string     `json:"warnings"`
}

func psCommand() *cli.Command {
	return &cli.Command{
		Name:  "ps",
		Usage: "print the containers that isolate runs",
		Description: "Modes: own (isolate has chosen its ids), adopt (the caller has, as Kubernetes does for hostUsers: false),\n" +
			"join (it shares those of its pod). Warnings are what a container runs without. Names and images are those\n" +
			"that containerd and Docker tell.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "print whole ids and images"},
		},
		Before: rootOnly,
		Action: func(ctx context.Context, c *cli.Command) error {
			// What cannot be read is told beside the rest.
			records, unread := record.List()
			list, unknown := statuses(records)
			unnamed := name(ctx, list)
			w := c.Root().Writer
			write := func() error { return writeStatuses(w, list, c.Bool("no-trunc")) }
			if c.Bool("json") {
				write = func() error { return printJSON(w, list) }
			}
			if unnamed != nil { // which is not what was asked for
				_, _ = fmt.Fprintf(c.Root().ErrWriter, "isolatectl: some names are not known: %v\n", unnamed)
			}
			return errors.Join(write(), unread, unknown)
		},
	}
}

// name fills in the names of containers. Without containers nobody is asked.
func name(ctx context.Context, list []containerStatus) error {
	var namespaces []string
	for _, s := range list {
		if !slices.Contains(namespaces, s.Namespace) {
			namespaces = append(namespaces, s.Namespace)
		}
	}
	if len(namespaces) == 0 {
		return nil
	}
	names, err := host.Names(ctx, namespaces)
	for i, s := range list {
		n := names[[2]string{s.Namespace, s.ID}]
		list[i].Name, list[i].Image = n.Name, n.Image
	}
	return err
}

func statuses(records []*record.Record) ([]containerStatus, error) {
	list, errs := []containerStatus{}, []error{}
	for _, r := range records {
		s := containerStatus{
			Namespace: r.Namespace, ID: r.ID, State: "created", Mode: r.Mode,
			Runtime: strings.TrimSpace(r.Runtime.Path + " " + r.Runtime.Version), Warnings: r.Warnings,
		}
		if s.Warnings == nil {
			s.Warnings = []string{}
		}
		if root, ok := r.Mapping.Root(); ok {
			s.First = root.UID
		}
		if r.Init != nil {
			alive, err := r.Init.Alive()
			s.PID, s.State = r.Init.PID, "dead"
			switch {
			case err != nil:
				s.State = "unknown"
				errs = append(errs, fmt.Errorf("container %s in namespace %s: %w", r.ID, r.Namespace, err))
			case alive:
				s.State = "running"
				if slices.ContainsFunc(r.Cgroups, cgroupfs.Frozen) {
					s.State = "paused"
				}
			}
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b containerStatus) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.ID, b.ID))
	})
	return list, errors.Join(errs...)
}

func writeStatuses(w io.Writer, list []containerStatus, whole bool) error {
	// A tabwriter keeps the first error for Flush.
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(format string, args ...any) { _, _ = fmt.Fprintf(t, format, args...) }
	row("NAMESPACE\tCONTAINER\tNAME\tIMAGE\tSTATE\tMODE\tFIRST ID\tPID\tRUNTIME\tWARNINGS\n")
	for _, s := range list {
		id, image := s.ID, s.Image
		if !whole {
			id, image = short(id), short(strings.TrimPrefix(strings.TrimPrefix(image, "docker.io/"), "library/"))
		}
		row("%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", s.Namespace, id, cmp.Or(s.Name, "-"), cmp.Or(image, "-"),
			s.State, s.Mode, s.First, s.PID, filepath.Base(s.Runtime), strings.Join(s.Warnings, "; "))
	}
	return t.Flush()
}

// hash is what ids of containers and digests of images are made of.
var hash = regexp.MustCompile(`[0-9a-f]{64}`)

// short shortens the hashes in a text to 12 digits, as other clients do.
func short(text string) string {
	return hash.ReplaceAllStringFunc(text, func(h string) string { return h[:12] })
}
