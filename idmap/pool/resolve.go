// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
)

// User is the name whose lines in /etc/subuid and /etc/subgid give this pool its
// ids, if the configuration does not.
const User = "isolate"

// Origin says where a pool's spans come from.
type Origin string

// The origins, in the order of precedence.
const (
	FromConfig  Origin = "configuration"
	FromSubIDs  Origin = "/etc/subuid and /etc/subgid"
	FromDefault Origin = "default"
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

// Resolve returns the spans of the pool: those configured, else the lines of
// User in subuid and subgid, which must be the same in both, else Default. It
// refuses spans that somebody else's line in subuid or subgid overlaps, or that
// contain an account's id, and names that line: a container must share its ids
// with nobody.
//
// It sees the files only; ranges and accounts that exist in a directory service
// alone are not checked.
func Resolve(configured []Span, files Files) ([]Span, Origin, error) {
	uids, err := parseFile(files.SubUID, ParseSubIDs)
	if err != nil {
		return nil, "", err
	}
	gids, err := parseFile(files.SubGID, ParseSubIDs)
	if err != nil {
		return nil, "", err
	}
	spans, origin := configured, FromConfig
	if len(spans) == 0 {
		spans, err = ownSpans(uids, gids, files)
		origin = FromSubIDs
		if err != nil {
			return nil, "", err
		}
	}
	if len(spans) == 0 {
		spans, origin = []Span{Default}, FromDefault
	}
	if err := check(spans); err != nil {
		return nil, "", fmt.Errorf("id pool from %s: %w", origin, err)
	}
	if err := collide(spans, uids, gids, files); err != nil {
		return nil, "", fmt.Errorf("id pool from %s: %w; choose other ids in %q, or in a line of user %q in both /etc/subuid and /etc/subgid",
			origin, err, Setting, User)
	}
	return spans, origin, nil
}

// ownSpans returns the lines of User, which must agree: a slot is both a uid and
// a gid range.
func ownSpans(uids, gids []SubID, files Files) ([]Span, error) {
	own := func(ids []SubID) []Span {
		var spans []Span
		for _, id := range ids {
			if id.Owner == User {
				spans = append(spans, id.Span)
			}
		}
		slices.SortFunc(spans, func(a, b Span) int { return cmp.Compare(a.First, b.First) })
		return slices.Compact(spans)
	}
	u, g := own(uids), own(gids)
	if !slices.Equal(u, g) {
		return nil, fmt.Errorf("user %q has %s in %q but %s in %q; both must have the same ranges",
			User, orNone(u), files.SubUID, orNone(g), files.SubGID)
	}
	return u, nil
}

func orNone(spans []Span) string {
	if len(spans) == 0 {
		return "no ids"
	}
	return format(spans)
}

func collide(spans []Span, uids, gids []SubID, files Files) error {
	for _, db := range []struct {
		path string
		ids  []SubID
	}{{files.SubUID, uids}, {files.SubGID, gids}} {
		for _, id := range db.ids {
			for _, s := range spans {
				if id.Owner != User && id.Span.overlaps(s) {
					return fmt.Errorf("%s overlaps ids %s of %q (%s line %d)", s, id.Span, id.Owner, db.path, id.Line)
				}
			}
		}
	}
	for _, path := range []string{files.Passwd, files.Group} {
		accounts, err := parseFile(path, ParseAccounts)
		if err != nil {
			return err
		}
		for _, a := range accounts {
			one := Span{First: a.ID, Count: 1}
			for _, s := range spans {
				if one.overlaps(s) {
					return fmt.Errorf("%s contains id %d of %q (%s line %d)", s, a.ID, a.Name, path, a.Line)
				}
			}
		}
	}
	return nil
}
