// SPDX-License-Identifier: Apache-2.0

// Package install runs `isolatectl install` and `uninstall` for the real
// containerd of a rig.
package install
