// SPDX-License-Identifier: Apache-2.0

package record

import (
	"fmt"
	"strings"
	"time"
)

// Stage is a part of making a container: "decide", from the request to what is to be made
// and the range of ids; "mount", the namespaces, the rootfs, the volumes and the edited
// spec; "runtime", the OCI runtime's create; and "settle", the cgroups, the files of
// lxcfs and the stand-ins.
type Stage struct {
	Name string        `json:"stage"`
	Took time.Duration `json:"ns"`
}

// Stages are those of one container, in their order.
type Stages []Stage

// String is for the log, in ms.
func (s Stages) String() string {
	var text []string
	for _, stage := range s {
		text = append(text, fmt.Sprintf("%s %.1f", stage.Name, stage.Took.Seconds()*1000))
	}
	return strings.Join(text, ", ")
}
