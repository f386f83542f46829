// SPDX-License-Identifier: Apache-2.0

// Command vmrun runs a command in a virtual machine with another kernel, which
// sees this machine's files. See package vm for what is in there.
//
//	vmrun [flags] -- command [argument...]
//	go test -exec "vmrun --kernel 6.12 --" ./...
//
// It exits as the command does, or with 124 after a timeout, or with 125 if the
// machine could not be run or did not live as long as the command.
package main

import (
	"context"
	"os"

	"github.com/isolate-shim/isolate/integration/vm"
)

func main() {
	os.Exit(vm.Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
