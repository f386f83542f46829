// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/isolate-shim/isolate/idmap"
)

// subID is one line of /etc/subuid or /etc/subgid (subuid(5)).
type subID struct {
	Owner string // a login name or a numeric uid
	Span  idmap.Span
	Line  int // 1-based
}

// malformed is a line that does not have the format of its file.
type malformed struct {
	Line   int // 1-based
	Reason string
}

// parseSubIDs parses the content of /etc/subuid or /etc/subgid. Blank lines and
// lines that start with # are skipped. A line that newuidmap(1) cannot read gives no
// ids to its owner, so a malformed line of another user is skipped too; a malformed
// line of User is an error, since its ids would be missing.
func parseSubIDs(content string) ([]subID, []malformed, error) {
	var ids []subID
	var bad []malformed
	for n, line := range numbered(content) {
		id, err := parseSubID(line)
		switch {
		case err != nil && (id.Owner == User || strings.TrimSpace(id.Owner) == User):
			return nil, nil, fmt.Errorf("line %d: %w", n, err)
		case err != nil:
			bad = append(bad, malformed{n, err.Error()})
		case id.Span.Size > 0:
			id.Line = n
			ids = append(ids, id)
		}
	}
	return ids, bad, nil
}

// parseSubID returns the owner also with an error.
func parseSubID(line string) (subID, error) {
	fields := strings.Split(line, ":")
	id := subID{Owner: fields[0]}
	if len(fields) != 3 || fields[0] == "" {
		return id, fmt.Errorf("want owner:first:count, have %q", line)
	}
	first, err := strconv.ParseUint(fields[1], 10, 32)
	if err != nil {
		return id, fmt.Errorf("first id: %w", err)
	}
	count, err := strconv.ParseUint(fields[2], 10, 32)
	if err != nil {
		return id, fmt.Errorf("count: %w", err)
	}
	if first+count > 1<<32 {
		return id, fmt.Errorf("%q runs past the last id", line)
	}
	id.Span = idmap.Span{First: idmap.HostID(first), Size: uint32(count)}
	return id, nil
}

// account is one line of /etc/passwd or /etc/group as far as it matters here.
type account struct {
	Name string
	ID   idmap.HostID
	Line int // 1-based
}

// parseAccounts parses the content of /etc/passwd or /etc/group: the name is the
// first field, the id the third (passwd(5), group(5)). NIS lines, which start
// with + or -, are skipped. A malformed line is no account, since no program can read
// it.
func parseAccounts(content string) ([]account, []malformed, error) {
	var accounts []account
	var bad []malformed
	for n, line := range numbered(content) {
		if line[0] == '+' || line[0] == '-' {
			continue
		}
		fields := strings.Split(line, ":")
		if len(fields) < 3 {
			bad = append(bad, malformed{n, fmt.Sprintf("want name:password:id, have %q", line)})
			continue
		}
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			bad = append(bad, malformed{n, fmt.Sprintf("id: %v", err)})
			continue
		}
		accounts = append(accounts, account{Name: fields[0], ID: idmap.HostID(id), Line: n})
	}
	return accounts, bad, nil
}

// numbered yields the lines that are neither blank nor a comment, trimmed, with
// their numbers.
func numbered(content string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		n := 0
		for line := range strings.Lines(content) {
			n++
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			if !yield(n, line) {
				return
			}
		}
	}
}

// parseFile parses a file of one of these formats; a file that does not exist has no
// lines. Each line that it skips is a warning.
func parseFile[T any](path string, parse func(string) ([]T, []malformed, error)) (items []T, warnings []string, _ error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read %q: %w", path, err)
	}
	items, bad, err := parse(string(content))
	if err != nil {
		return nil, nil, fmt.Errorf("parse %q: %w", path, err)
	}
	for _, m := range bad {
		warnings = append(warnings, fmt.Sprintf("%s line %d was ignored: %s", path, m.Line, m.Reason))
	}
	return items, warnings, nil
}
