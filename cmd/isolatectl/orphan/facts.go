// SPDX-License-Identifier: Apache-2.0

package orphan

// Facts are what decides whether the state of a container is an orphan's. Each that is
// not a proof says why.
type Facts struct {
	// Bundle says why containerd may still know the container, "" if it does not: then
	// nobody will call `delete`.
	Bundle string
	// Alive says what of the container lives, "" for nothing: its first process, another
	// one in its cgroups, or one with its ids.
	Alive string
	// Held is set if a shim that lives holds its ids.
	Held bool
	// Unknown says what could not be found out, "" for nothing.
	Unknown string
}

// kept says why the state must stay, "" if it is an orphan's.
func (f Facts) kept() string {
	switch {
	case f.Bundle != "":
		return f.Bundle
	case f.Held:
		return "a shim holds its ids"
	case f.Alive != "":
		return f.Alive
	}
	return f.Unknown
}
