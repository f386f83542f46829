// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// message is what a runtime sends to a listener: the container process state
// (runtime-spec, config-linux.md "The Container Process State").
type message struct {
	// Index is the place of the seccomp descriptor among the descriptors of the message.
	Index int
	// Container is the id of the container.
	Container string
}

// parseMessage parses a container process state that came with count descriptors.
func parseMessage(data []byte, count int) (message, error) {
	var state specs.ContainerProcessState
	if err := json.Unmarshal(data, &state); err != nil {
		return message{}, fmt.Errorf("parse container process state: %w", err)
	}
	m := message{Index: -1, Container: state.State.ID}
	for i, name := range state.Fds {
		if name != specs.SeccompFdName {
			continue
		}
		if m.Index >= 0 {
			return message{}, fmt.Errorf("parse container process state: two descriptors named %q", name)
		}
		m.Index = i
	}
	if m.Index < 0 || m.Index >= count {
		return message{}, fmt.Errorf("parse container process state: no %s among %d descriptors", specs.SeccompFdName, count)
	}
	return m, nil
}
