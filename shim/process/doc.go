// SPDX-License-Identifier: Apache-2.0

// Package process finds the daemons of a host and asks their own programs what they
// are, as root, without ever running what a container has put in place of one: a
// container may call its processes what it likes.
//
// What does not belong here: what the daemons are configured to do.
package process
