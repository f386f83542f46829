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

// SubID is one line of /etc/subuid or /etc/subgid (subuid(5)).
type SubID struct {
	Owner string // a login name or a numeric uid
	Span  Span
	Line  int // 1-based
}

// ParseSubIDs parses the content of /etc/subuid or /etc/subgid. Blank lines and
// lines that start with # are skipped. Every other line must be right: a line
// that cannot be read may hide an overlap, so it is an error with its number.
func ParseSubIDs(content string) ([]SubID, error) {
	var ids []SubID
	for n, line := range numbered(content) {
		fields := strings.Split(line, ":")
		if len(fields) != 3 || fields[0] == "" {
			return nil, fmt.Errorf("line %d: want owner:first:count, have %q", n, line)
		}
		first, err := strconv.ParseUint(fields[1], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("line %d: first id: %w", n, err)
		}
		count, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("line %d: count: %w", n, err)
		}
		if first+count > 1<<32 {
			return nil, fmt.Errorf("line %d: %q runs past the last id", n, line)
		}
		if count == 0 {
			continue
		}
		span := Span{First: idmap.HostID(first), Count: uint32(count)}
		ids = append(ids, SubID{Owner: fields[0], Span: span, Line: n})
	}
	return ids, nil
}

// Account is one line of /etc/passwd or /etc/group as far as it matters here.
type Account struct {
	Name string
	ID   idmap.HostID
	Line int // 1-based
}

// ParseAccounts parses the content of /etc/passwd or /etc/group: the name is the
// first field, the id the third (passwd(5), group(5)). NIS lines, which start
// with + or -, are skipped.
func ParseAccounts(content string) ([]Account, error) {
	var accounts []Account
	for n, line := range numbered(content) {
		if line[0] == '+' || line[0] == '-' {
			continue
		}
		fields := strings.Split(line, ":")
		if len(fields) < 3 {
			return nil, fmt.Errorf("line %d: want name:password:id, have %q", n, line)
		}
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("line %d: id: %w", n, err)
		}
		accounts = append(accounts, Account{Name: fields[0], ID: idmap.HostID(id), Line: n})
	}
	return accounts, nil
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

// parseFile parses a file of one of these formats; one that does not exist has
// no lines.
func parseFile[T any](path string, parse func(string) ([]T, error)) ([]T, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	items, err := parse(string(content))
	if err != nil {
		return nil, fmt.Errorf("parse %q: %w", path, err)
	}
	return items, nil
}
