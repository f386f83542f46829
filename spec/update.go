// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// UpdateResources edits the resources of an Update request, in JSON: it removes the
// device rules, so that the update leaves devices alone.
//
// The CRI sends with every update, of a CPU share for instance, the resources of
// the spec that containerd has stored, which is not the one that isolate made of
// it. runc leaves device rules alone in an update; crun applies them, and then a
// privileged container has the devices of the host. Fields that this version of
// runtime-spec does not know are kept.
func UpdateResources(data []byte) ([]byte, error) {
	var fields map[string]json.RawMessage
	var typed specs.LinuxResources
	err := json.Unmarshal(data, &fields)
	if err == nil {
		err = json.Unmarshal(data, &typed)
	}
	if err == nil && fields == nil {
		err = errors.New("it is null")
	}
	if err == nil {
		err = oneReading(data, &typed)
	}
	if err != nil {
		return nil, fmt.Errorf("decode resources: %w", err)
	}
	delete(fields, "devices")
	out, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("encode resources: %w", err)
	}
	return out, nil
}
