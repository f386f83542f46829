// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

const (
	shimName = rig.Shim
	runcName = "io.containerd.runc.v2"
	// handler is what pods name to be isolated.
	handler = "isolate"

	criTable     = `plugins."io.containerd.cri.v1.runtime"`
	runtimeTable = criTable + ".containerd.runtimes"
)

// isolateStanza is the first of the two ways to configure the shim.
const isolateStanza = "[" + runtimeTable + "." + handler + "]\nruntime_type = \"" + shimName + "\"\n"

// node is a containerd with its Kubernetes interface, a network for pods, and
// crictl.
type node struct {
	*rig.Node
	crictl string
}

// startNode starts a containerd for one test, with more configuration.
func startNode(t *testing.T, config rig.Config) *node {
	t.Helper()
	networks, err := network(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	programs, err := peer.Get(t.Context(), peer.CRITools)
	if err != nil {
		t.Fatal(err)
	}
	nft, err := peer.Get(t.Context(), peer.Nftables)
	if err != nil {
		t.Fatal(err)
	}
	if config.Programs == nil {
		config.Programs = map[string]string{}
	}
	config.Programs["nft"] = nft.Program("nft")
	if config.LogLevel == "" {
		config.LogLevel = "info"
	}
	config.CRI, config.Isolate = true, true
	config.TOML = networks + config.TOML
	n := &node{Node: rig.Containerd(t, config), crictl: programs.Program("crictl")}
	if _, err := n.ImportInto(t.Context(), "k8s.io", image.Pause); err != nil {
		t.Fatal(err)
	}
	return n
}

// network writes how pods get their network, and returns the line of
// containerd's configuration that says where it is written.
func network(ctx context.Context) (string, error) {
	plugins, err := peer.Get(ctx, peer.CNI)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(rig.Dir(), "cni")
	list := `{
	"cniVersion": "1.0.0", "name": "pods",
	"plugins": [
		{
			"type": "bridge", "bridge": "pods0", "isDefaultGateway": true, "hairpinMode": true,
			"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.80.0/22"}]], "dataDir": "` + filepath.Join(dir, "addresses") + `"}
		},
		{"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}}
	]
}`
	err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "10-pods.conflist"), []byte(list), 0o644))
	return fmt.Sprintf("[%s.cni]\nbin_dirs = [%q]\nconf_dir = %q\n", criTable, filepath.Join(plugins.Dir, "bin"), dir), err
}
