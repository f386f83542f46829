// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// ociRuntimes are those under which pods are tested.
var ociRuntimes = []peer.Name{peer.Runc15, peer.Crun121}

// podNode is a node with an lxcfs, which may take its time on a busy machine unless the test
// configures something else, and the image for containers.
func podNode(t *testing.T, config rig.Config) *node {
	t.Helper()
	rig.LxcfsFor(t, peer.Lxcfs6, "")
	rig.Configure(t, "lxcfs.timeout_ms = 10000\n")
	config.TOML = isolateStanza + config.TOML
	n := startNode(t, config)
	n.importBusybox(t)
	return n
}

// eachPod runs a test with an isolated pod of each kind, under OCI runtimes.
func eachPod(t *testing.T, runtimes []peer.Name, test func(t *testing.T, p *pod, config message)) {
	t.Helper()
	for _, runtime := range runtimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE)
			n := podNode(t, rig.Config{Runc: runtime})
			for _, kind := range kinds {
				t.Run(kind.name, func(t *testing.T) {
					config := kind.config()
					test(t, n.pod(t, config), config)
				})
			}
		})
	}
}

func (n *node) importBusybox(t *testing.T) {
	t.Helper()
	if _, err := n.ImportInto(t.Context(), "k8s.io", image.Busybox); err != nil {
		t.Fatal(err)
	}
}

// info is what crictl tells of a pod or container with -o json.
type info struct {
	Info struct {
		PID int `json:"pid"`
	} `json:"info"`
	Status struct {
		State    string `json:"state"`
		ExitCode int    `json:"exitCode"`
		Reason   string `json:"reason"`
		Network  struct {
			IP string `json:"ip"`
		} `json:"network"`
	} `json:"status"`
}

func (n *node) inspect(t *testing.T, what, id string) (i info) {
	t.Helper()
	text := n.try(what, "-o", "json", id).Must(t)
	if err := json.Unmarshal([]byte(text), &i); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return i
}

func (p *pod) info(t *testing.T) info { t.Helper(); return p.n.inspect(t, "inspectp", p.id) }

func (c *container) info(t *testing.T) info { t.Helper(); return c.pod.n.inspect(t, "inspect", c.id) }

// ids returns the first host id of a process and its user namespace.
func ids(t *testing.T, pid int) (first int, userns string) {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	text, err := os.ReadFile(filepath.Join(dir, "uid_map"))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text))
	if len(fields) != 3 || fields[0] != "0" || fields[2] != "65536" {
		t.Fatalf("ids of process %d are %q", pid, fields)
	}
	userns, err = os.Readlink(filepath.Join(dir, "ns/user"))
	if err != nil {
		t.Fatal(err)
	}
	first, err = strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return first, userns
}

// refused wants a command to fail, and to say all of this.
func refused(t *testing.T, r rig.Result, parts ...string) {
	t.Helper()
	if r.Code == 0 {
		t.Errorf("%q succeeded, want it to say %q", r.Argv, parts)
		return
	}
	for _, part := range parts {
		// crictl prints the message in the quotes of its log.
		if !strings.Contains(strings.ReplaceAll(r.Stderr, `\"`, `"`), part) {
			t.Errorf("%q is not in %s", part, r.Stderr)
		}
	}
}

// twoRanges is configuration for a host that can give ids to two pods.
const twoRanges = "[ids]\npool = [\"1900281856-1900412927\"]\n"

// removeAll removes all pods.
func (n *node) removeAll(t *testing.T) {
	t.Helper()
	n.try("rmp", "--all", "--force").Must(t)
}
