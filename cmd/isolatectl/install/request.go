// SPDX-License-Identifier: Apache-2.0

package install

import (
	"time"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
)

// ctlName is the operator's command.
const ctlName = "isolatectl"

// Defaults of a request.
const (
	BinDir  = "/usr/local/bin"
	Timeout = 2 * time.Minute
)

// Request is what an administrator asks for.
type Request struct {
	// BinDir is where the programs go.
	BinDir string
	// Handler makes containerd know the handler. Docker and ctr need none.
	Handler bool
	// Address is the socket of the containerd.
	Address string
	// Restart says how containerd is restarted, if it has to be.
	Restart host.Restart
	// Node labels a Kubernetes node; nil for none.
	Node *Node
	// Label is the label's key and value.
	Label Label
	// Force makes uninstall go on although containers run or files have changed.
	Force bool
	// Timeout bounds the waiting for containerd.
	Timeout time.Duration
	// DryRun only says what would be done.
	DryRun bool
	// Say is called with each thing that is done.
	Say func(format string, args ...any)
}

// Label is a label of a node.
type Label struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}
