// SPDX-License-Identifier: Apache-2.0

// Package upgrade puts one version of the shim in the place of another while containers
// run; `make test-upgrade OLD=v0.1.0` runs it.
package upgrade
