// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"os"
	"path/filepath"

	"github.com/isolate-shim/isolate/integration/cache"
)

// Name is a peer: a program or a family of programs in one version.
type Name string

// The peers. Those with a full version are pinned; of the others, the newest
// version that Debian holds in that series is taken.
const (
	// Containerd24 has containerd, ctr and containerd-shim-runc-v2, as have
	// the two that follow.
	Containerd24 Name = "containerd-2.4"
	// Containerd22 is the last that starts shims without a bootstrap message.
	Containerd22 Name = "containerd-2.2"
	// Containerd17 is that of Debian trixie; it only knows version 2 of the task API.
	Containerd17 Name = "containerd-1.7"

	Runc15  Name = "runc-1.5"  // newest release
	Runc11  Name = "runc-1.1"  // Debian bookworm
	Crun121 Name = "crun-1.21" // Debian trixie
	Crun18  Name = "crun-1.8"  // Debian bookworm; refuses spec versions after 1.0

	Lxcfs7 Name = "lxcfs-7" // Debian forky
	Lxcfs6 Name = "lxcfs-6" // Debian trixie
	Lxcfs5 Name = "lxcfs-5" // Debian bookworm

	// Criu is that of Debian trixie; bookworm's 3.17 does not know the vDSO of
	// Linux 6.18.
	Criu Name = "criu-4"

	// NvidiaHook is what hooks of NVIDIA's devices (CDI) run.
	NvidiaHook Name = "nvidia-cdi-hook"

	// Filesystems has mkfs.btrfs, mkfs.erofs and mkfs.xfs, of Debian trixie.
	Filesystems Name = "filesystems"

	// Docker26 has dockerd, its docker-proxy and docker-init, and the client, of
	// Debian trixie. Docker29 has dockerd and docker-proxy alone.
	Docker26 Name = "docker-26"
	Docker29 Name = "docker-29"

	CRITools Name = "cri-tools-1.36" // crictl and critest
	CNI      Name = "cni-plugins"
	Nftables Name = "nftables-1.0" // Debian bookworm; nft, which CNI's portmap runs
	Etcd     Name = "etcd-3.5"     // Debian trixie

	// The parsers of AppArmor policy; each series has rules that the one before
	// takes for errors.
	AppArmor2 Name = "apparmor-2" // Debian bullseye
	AppArmor3 Name = "apparmor-3" // Debian bookworm
	AppArmor4 Name = "apparmor-4" // Debian trixie

	// Secilc compiles SELinux policy.
	Secilc Name = "secilc-3" // Debian bookworm

	// Kubelet has kubelet, kube-proxy and kubectl, ControlPlane what they talk to.
	Kubelet      Name = "kubelet-1.36"
	ControlPlane Name = "control-plane-1.36"
)

// Default lists the peers that the tests need.
var Default = []Name{
	Containerd24, Runc15, Crun121, Lxcfs5, Lxcfs6, Lxcfs7, Runc11, Crun18, Containerd17, Containerd22, Criu, Filesystems,
	CRITools, CNI, Nftables, Docker26, Docker29, Kubelet, NvidiaHook,
}

// Peer is a directory of programs.
type Peer struct {
	Name Name
	Dir  string
}

// Get returns a peer, after making it if need be: for up to some minutes, with
// a line of progress on stderr.
func Get(ctx context.Context, name Name) (Peer, error) {
	dir, err := cache.Get(ctx, string(name))
	return Peer{Name: name, Dir: dir}, err
}

// Program returns the absolute path of one of the peer's programs.
func (p Peer) Program(name string) string {
	return filepath.Join(p.Dir, "bin", name)
}

// Programs returns the names of the peer's programs.
func (p Peer) Programs() []string {
	entries, err := os.ReadDir(filepath.Join(p.Dir, "bin"))
	if err != nil {
		return nil
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
