// SPDX-License-Identifier: Apache-2.0

package idmap

// As runs fn on a thread that acts on file systems as owner, with all
// capabilities kept. Host root must do so to create anything in the overlay of
// a container: its own ids have no counterpart there (EOVERFLOW). fn must not
// start goroutines that rely on it.
func As(owner Owner, fn func() error) error {
	return onDisposableThread(func() error {
		if err := assumeFSIDs(owner); err != nil {
			return err
		}
		return fn()
	})
}
