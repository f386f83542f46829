// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v3"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/shim/record"
)

// containerStatus is one container, as its record has it.
type containerStatus struct {
	Namespace string `json:"namespace"`
	ID        string `json:"id"`
	// State is created until the first process exists, then running, and dead
	// when it has ended and nobody has deleted the container yet; unknown if the
	// process cannot be looked at.
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
			"join (it shares those of its pod). Warnings are what a container runs without.",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Before: noArguments,
		Action: func(_ context.Context, c *cli.Command) error {
			// What cannot be read is told beside the rest.
			records, unread := record.List()
			list, unknown := statuses(records)
			write := writeStatuses
			if c.Bool("json") {
				write = func(w io.Writer, list []containerStatus) error { return printJSON(w, list) }
			}
			return errors.Join(write(c.Root().Writer, list), unread, unknown)
		},
	}
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
			}
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b containerStatus) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.ID, b.ID))
	})
	return list, errors.Join(errs...)
}

func writeStatuses(w io.Writer, list []containerStatus) error {
	// A tabwriter keeps the first error for Flush.
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(format string, args ...any) { _, _ = fmt.Fprintf(t, format, args...) }
	row("NAMESPACE\tCONTAINER\tSTATE\tMODE\tFIRST ID\tPID\tRUNTIME\tWARNINGS\n")
	for _, s := range list {
		row("%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", s.Namespace, s.ID, s.State, s.Mode, s.First, s.PID, s.Runtime, strings.Join(s.Warnings, "; "))
	}
	return t.Flush()
}
