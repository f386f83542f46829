// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"

	"github.com/isolate-shim/isolate/shim/apparmor"
)

// loadProfile loads the AppArmor profile of containers where AppArmor is on. A host
// that cannot load it can do without: containers keep what their engine gives them.
func loadProfile(ctx context.Context, r Request) error {
	if !apparmor.Enabled() {
		return nil
	}
	switch err := apparmor.Load(ctx); {
	case errors.Is(err, apparmor.ErrNoParser):
		r.Say("%v, and run this again; until then the default profiles of engines deny to containers what nesting needs", err)
	case err != nil:
		return err
	default:
		r.Say("loaded AppArmor profile %s from %s", apparmor.Name, apparmor.File)
	}
	return nil
}

// unloadProfile takes it away again.
func unloadProfile(ctx context.Context, r Request) error {
	switch err := apparmor.Unload(ctx); {
	case errors.Is(err, apparmor.ErrInUse), errors.Is(err, apparmor.ErrNoParser):
		r.Say("removed %s: %v", apparmor.File, err)
	case err != nil:
		return err
	default:
		r.Say("removed AppArmor profile %s", apparmor.Name)
	}
	return nil
}
