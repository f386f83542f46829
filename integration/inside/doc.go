// SPDX-License-Identifier: Apache-2.0

// Command inside is what the integration tests run in a container where a shell
// is not enough: it makes system calls that no ordinary program makes and
// reports their errors by number, as JSON. It is static, so that it can be bound
// into any image, or be the only file of a rootfs.
//
// It only looks and tries; what the answers ought to be is the tests' business.
package main
