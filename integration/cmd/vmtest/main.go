// SPDX-License-Identifier: Apache-2.0

// Command vmtest runs the integration tests that depend on the kernel in virtual
// machines, under every kernel or those that are named; see package matrix.
package main

import (
	"context"
	"os"

	"github.com/isolate-shim/isolate/integration/matrix"
)

func main() { os.Exit(matrix.Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }
