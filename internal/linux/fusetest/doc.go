// SPDX-License-Identifier: Apache-2.0

// Package fusetest has a FUSE server for tests of what waits for one.
package fusetest
