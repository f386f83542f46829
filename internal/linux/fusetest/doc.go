// SPDX-License-Identifier: Apache-2.0

// Package fusetest is a FUSE server for tests of code that must not wait for one.
package fusetest
