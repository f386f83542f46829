// SPDX-License-Identifier: Apache-2.0

package thread

// WithFSIDs runs fn on a thread that acts on file systems as another user and group,
// with all capabilities kept. Host root must do so to create anything in the overlay
// of a container: its own ids have no counterpart there (EOVERFLOW). fn must not
// start goroutines that rely on it.
func WithFSIDs(uid, gid uint32, fn func() error) error {
	return Run(func() error {
		if err := SetFSIDs(uid, gid); err != nil {
			return err
		}
		return fn()
	})
}

// AsUser runs fn on a thread whose user is uid, with all capabilities kept. In the
// user namespaces that uid owns it has every capability (user_namespaces(7)). fn
// must not start goroutines that rely on it.
func AsUser(uid uint32, fn func() error) error {
	return Run(func() error {
		if err := assumeUser(uintptr(uid), uintptr(uid)); err != nil {
			return err
		}
		return fn()
	})
}

// AsEffectiveUser is [AsUser] for the effective user alone.
func AsEffectiveUser(uid uint32, fn func() error) error {
	return Run(func() error {
		if err := assumeUser(keep, uintptr(uid)); err != nil {
			return err
		}
		return fn()
	})
}
