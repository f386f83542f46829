// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/isolate-shim/isolate/idmap"
)

// User is the name whose lines in /etc/subuid and /etc/subgid give this pool its
// ids, unless the configuration names some.
const User = "isolate"

// Origin says where a pool's spans come from.
type Origin string

// The origins, in the order of precedence.
const (
	fromConfig  Origin = "configuration"
	fromSubIDs  Origin = "/etc/subuid and /etc/subgid"
	fromDefault Origin = "default"
)

// Files are the account databases that a pool must not collide with.
type Files struct {
	SubUID, SubGID, Passwd, Group string
}

// FilesIn returns the databases below an etc directory.
func FilesIn(etc string) Files {
	return Files{
		SubUID: filepath.Join(etc, "subuid"),
		SubGID: filepath.Join(etc, "subgid"),
		Passwd: filepath.Join(etc, "passwd"),
		Group:  filepath.Join(etc, "group"),
	}
}

// Resolve returns the spans of the pool: the configured ones, else the lines of
// User in subuid and subgid, which must be the same in both, else Default. It
// refuses spans that overlap another user's line in subuid or subgid, or that
// contain the id of an account, and names the line: a container shares its ids with
// no account.
//
// It reads files only, and does not see ranges and accounts that only a directory
// service knows.
func Resolve(configured []idmap.Span, files Files) (Resolved, error) {
	r := Resolved{Spans: configured, Origin: fromConfig}
	db, err := files.read()
	if err != nil {
		return r, err
	}
	r.Warnings = db.warnings
	if len(r.Spans) == 0 {
		r.Origin = fromSubIDs
		if r.Spans, err = ownSpans(db.subUIDs, db.subGIDs, files); err != nil {
			return r, err
		}
	}
	if len(r.Spans) == 0 {
		r.Spans, r.Origin = []idmap.Span{defaultSpan}, fromDefault
	}
	if err := check(r.Spans); err != nil {
		return r, fmt.Errorf("id pool from %s: %w", r.Origin, err)
	}
	if err := db.collide(r.Spans, files); err != nil {
		return r, fmt.Errorf("id pool from %s: %w; choose other ids in %q, or in a line of user %q in both /etc/subuid and /etc/subgid",
			r.Origin, err, setting, User)
	}
	return r, nil
}

// Resolved is the answer of Resolve.
type Resolved struct {
	Spans  []idmap.Span
	Origin Origin
	// Warnings name malformed lines of other users.
	Warnings []string
}

// databases are the contents of Files.
type databases struct {
	subUIDs, subGIDs []subID
	users, groups    []account
	warnings         []string
}

func (f Files) read() (d databases, err error) {
	var warnings [4][]string
	var errs [4]error
	d.subUIDs, warnings[0], errs[0] = parseFile(f.SubUID, parseSubIDs)
	d.subGIDs, warnings[1], errs[1] = parseFile(f.SubGID, parseSubIDs)
	d.users, warnings[2], errs[2] = parseFile(f.Passwd, parseAccounts)
	d.groups, warnings[3], errs[3] = parseFile(f.Group, parseAccounts)
	d.warnings = slices.Concat(warnings[:]...)
	return d, errors.Join(errs[:]...)
}

// ownSpans returns the ranges of User, which must be the same in both files: a slot is
// a range of uids and of gids.
func ownSpans(uids, gids []subID, files Files) ([]idmap.Span, error) {
	own := func(ids []subID) []idmap.Span {
		var spans []idmap.Span
		for _, id := range ids {
			if id.Owner == User {
				spans = append(spans, id.Span)
			}
		}
		slices.SortFunc(spans, func(a, b idmap.Span) int { return cmp.Compare(a.First, b.First) })
		return slices.Compact(spans)
	}
	u, g := own(uids), own(gids)
	if !slices.Equal(u, g) {
		return nil, fmt.Errorf("user %q has %s in %q but %s in %q; both must have the same ranges",
			User, orNone(u), files.SubUID, orNone(g), files.SubGID)
	}
	return u, nil
}

func orNone(spans []idmap.Span) string {
	if len(spans) == 0 {
		return "no ids"
	}
	return format(spans)
}

func (d databases) collide(spans []idmap.Span, files Files) error {
	for _, db := range []struct {
		path string
		ids  []subID
	}{{files.SubUID, d.subUIDs}, {files.SubGID, d.subGIDs}} {
		for _, id := range db.ids {
			for _, s := range spans {
				if id.Owner != User && id.Span.Overlaps(s) {
					return fmt.Errorf("%s overlaps ids %s of %q (%s line %d)", s, id.Span, id.Owner, db.path, id.Line)
				}
			}
		}
	}
	return errors.Join(contains(spans, d.users, files.Passwd), contains(spans, d.groups, files.Group))
}

// contains names the first account whose id is in the spans.
func contains(spans []idmap.Span, accounts []account, path string) error {
	for _, a := range accounts {
		one := idmap.Span{First: a.ID, Size: 1}
		for _, s := range spans {
			if one.Overlaps(s) {
				return fmt.Errorf("%s contains id %d of %q (%s line %d)", s, a.ID, a.Name, path, a.Line)
			}
		}
	}
	return nil
}
