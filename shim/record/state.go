// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/json"
	"fmt"
)

// stateFiles are what runtimes call the file in which they keep a container's
// state: runc and youki, crun.
var stateFiles = []string{"state.json", "status"}

// statedPID reads from such a file whom the runtime takes for the container's first
// process.
func statedPID(state []byte) (int, error) {
	var s struct {
		Runc int `json:"init_process_pid"`
		Crun int `json:"pid"`
	}
	if err := json.Unmarshal(state, &s); err != nil {
		return 0, fmt.Errorf("decode the runtime's state: %w", err)
	}
	if s.Runc != 0 {
		return s.Runc, nil
	}
	return s.Crun, nil
}
