// SPDX-License-Identifier: Apache-2.0

// Package cgroupfs goes through groups of mounted cgroup file systems: it lists
// their processes, thaws them, and removes groups.
//
// A container that owns its groups can nest them deeper than PATH_MAX and make tens
// of thousands of them side by side. A path does not reach the deep ones. So a tree is
// walked by descriptor, one name at a time, with one open directory at any depth, and
// for as long as the caller's context lasts.
//
// The way up is "..". That is safe here: a cgroup directory cannot be moved to
// another parent (kernel/cgroup/cgroup-v1.c: cgroup1_rename; version 2 has no rename),
// and the walk compares the inode with the one that it has seen on the way down.
//
// The caller decides which groups are walked and which processes may be killed.
package cgroupfs
