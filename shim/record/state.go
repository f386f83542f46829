// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/json"
	"fmt"
	"io"
)

// stateFiles are what runtimes call the file in which they keep a container's
// state: runc and youki, crun.
var stateFiles = []string{"state.json", "status"}

// statedPID reads from such a file whom the runtime takes for the container's first
// process: runc's init_process_pid, or crun's and youki's pid. It reads no further:
// what follows in runc's is the whole configuration of the container.
func statedPID(state io.Reader) (int, error) {
	d := json.NewDecoder(state)
	open, err := d.Token()
	if err == nil && open != json.Delim('{') {
		err = fmt.Errorf("it begins with %v", open)
	}
	for err == nil && d.More() {
		var key json.Token
		if key, err = d.Token(); err != nil {
			break
		}
		if key == "init_process_pid" || key == "pid" {
			var pid int
			if err = d.Decode(&pid); err == nil {
				return pid, nil
			}
			break
		}
		var skipped json.RawMessage
		err = d.Decode(&skipped)
	}
	if err == nil {
		_, err = d.Token() // the end
	}
	if err != nil {
		return 0, fmt.Errorf("decode the runtime's state: %w", err)
	}
	return 0, nil
}
