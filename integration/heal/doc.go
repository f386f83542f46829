// SPDX-License-Identifier: Apache-2.0

// Package heal lets lxcfs die and come back under running containers, with real
// servers, and looks at what their programs see.
package heal
