// SPDX-License-Identifier: Apache-2.0

// Command armtest builds and checks everything for arm64, and runs the tests of
// single packages on an emulated processor; see package arm64.
package main

import (
	"context"
	"os"

	"github.com/isolate-shim/isolate/integration/arm64"
)

func main() { os.Exit(arm64.Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }
