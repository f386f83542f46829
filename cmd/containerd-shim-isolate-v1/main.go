// SPDX-License-Identifier: Apache-2.0

// Command containerd-shim-isolate-v1 is the shim that containerd starts for the
// runtime io.containerd.isolate.v1.
package main

import (
	"github.com/isolate-shim/isolate/shim/manager"
	_ "github.com/isolate-shim/isolate/shim/task" // serves the task API
)

func main() { manager.Main() }
