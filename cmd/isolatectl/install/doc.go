// SPDX-License-Identifier: Apache-2.0

// Package install puts isolate on a host and takes it away again: the two
// programs, a drop-in that makes containerd know the runtime handler isolate, the
// AppArmor profile of containers where AppArmor is on, and a label on the Kubernetes
// node. It is `isolatectl install` and `uninstall`.
//
// What is done is decided first, as data (plan), which can be printed; then it
// is written down in a receipt, then it is done. Uninstall undoes what the receipt
// names and nothing else: a file that somebody has changed since stays and is
// named. Both may run again after they were interrupted, and change nothing where
// nothing is to be done; a containerd that knows the handler is not restarted.
//
// Files are replaced by renaming, since the old shim may be running. Uninstall
// refuses while containers of isolate run: containerd needs the shim to clean up
// after them.
//
// All paths are those of the host. In a container, the caller changes its root
// directory to the host's first, after it has opened what it brings along
// ([Open], [InCluster]).
package install
