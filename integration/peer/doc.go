// SPDX-License-Identifier: Apache-2.0

// Package peer gets the third-party programs that the shim has to work with:
// containerd, OCI runtimes, lxcfs.
//
// Programs written in Go are built from their modules at a pinned version, each
// in a throw-away module of its own, so that their dependencies never meet
// ours. Other programs come from Debian, unpacked beside the system and never
// installed. What belongs to images or to the project's own programs is
// elsewhere.
//
// To add a peer, add its name here and its recipe to debianRecipes or
// goRecipes.
package peer
