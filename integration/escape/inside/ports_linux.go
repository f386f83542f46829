// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package main

import "golang.org/x/sys/unix"

func ioperm(_, _, _ int) error { return unix.ENOSYS }
func iopl(int) error           { return unix.ENOSYS }
