// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"fmt"
	"strconv"
)

// Status is what isolate reads of /proc/PID/status (proc_pid_status(5)). The ids are as
// the reader's user namespace sees them.
type Status struct {
	Name  string
	State byte
	// UIDs and GIDs are the real, effective, saved and file system ids; GIDs has the
	// supplementary groups as well.
	UIDs, GIDs []uint32
}

// ParseStatus parses the content of /proc/PID/status. The kernel escapes newlines
// in the name, so that a process cannot forge lines.
func ParseStatus(content []byte) (Status, error) {
	var s Status
	for line := range bytes.Lines(content) {
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		value = bytes.TrimSpace(value)
		var err error
		switch string(key) {
		case "Name":
			s.Name = string(value)
		case "State":
			if len(value) > 0 {
				s.State = value[0]
			}
		case "Uid":
			s.UIDs, err = appendIDs(s.UIDs, value)
		case "Gid":
			s.GIDs, err = appendIDs(s.GIDs, value)
		case "Groups": // comes after the others
			s.GIDs, err = appendIDs(s.GIDs, value)
			if err == nil && (s.State == 0 || len(s.UIDs) != 4 || len(s.GIDs) < 4) {
				err = fmt.Errorf("state, uids or gids are missing before %q", line)
			}
			if err != nil {
				return Status{}, fmt.Errorf("parse process status: %w", err)
			}
			return s, nil
		}
		if err != nil {
			return Status{}, fmt.Errorf("parse process status: %w", err)
		}
	}
	return Status{}, fmt.Errorf("parse process status %.64q: no line of groups", content)
}

func appendIDs(ids []uint32, text []byte) ([]uint32, error) {
	for field := range bytes.FieldsSeq(text) {
		id, err := strconv.ParseUint(string(field), 10, 32)
		if err != nil {
			return nil, err
		}
		ids = append(ids, uint32(id))
	}
	return ids, nil
}
