// SPDX-License-Identifier: Apache-2.0

// Package stage turns decisions into mounts: the container's rootfs, and a
// clone of every volume, on a tmpfs of the container's own.
//
// The tmpfs is private and holds nothing but mount points, so that one lazy
// unmount drops everything that was staged, also after a crash; the record
// names it before it exists. Nothing is ever mounted inside a bundle, except
// <bundle>/rootfs: containerd deletes the contents of other mounts there.
//
// Volumes are staged here, in a mount namespace that the initial user namespace
// owns, for two reasons. Old runtimes silently ignore id mappings of mounts
// (runc 1.1.5), while a clone that is mapped already works with all of them.
// And the kernel locks flags of mounts that come from a more privileged mount
// namespace (mount_namespaces(7)): a read-only volume cannot be remounted
// writable, although the container's root has CAP_SYS_ADMIN.
package stage
