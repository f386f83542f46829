// SPDX-License-Identifier: Apache-2.0

// Package apt gets Debian packages of any suite without touching the machine's
// own apt and dpkg: own lists, own (empty) package database, nothing installed.
//
// Hashes and signatures are checked by apt itself, against Debian's archive
// keyring. The mirror is the one that the machine already uses. Versions in
// Debian float, so a caller resolves a closure first and makes the closure part
// of its cache key.
package apt
