// SPDX-License-Identifier: Apache-2.0

// Package packages installs, removes and runs what `make dist` has built, in containers of
// Debian; `make test-package` runs it.
package packages
