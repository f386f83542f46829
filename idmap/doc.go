// SPDX-License-Identifier: Apache-2.0

// Package idmap knows the ids of the host and those of a container, and the mappings
// between them. It makes no system call.
//
// Not here: user namespaces that carry mappings (package userns), mounts that have
// them (packages mount and rootfs), and who gets which range (package pool).
package idmap
