// SPDX-License-Identifier: Apache-2.0

// Isolatectl shows what isolated containers have and what a host can do.
package main

import "github.com/isolate-shim/isolate/shim/ctl"

func main() { ctl.Main() }
