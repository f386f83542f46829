// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

const securityfs = "/sys/kernel/security/apparmor"

// Enabled tells whether the kernel confines processes by AppArmor. It asks what OCI
// runtimes ask, because they apply no profile where the answer is no.
func Enabled() bool {
	if _, err := os.Stat(securityfs); err != nil {
		return false
	}
	on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && len(on) > 0 && on[0] == 'Y'
}

// Loaded tells whether the kernel has the profile.
func Loaded() (bool, error) {
	profiles, err := os.ReadFile(securityfs + "/profiles")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("list AppArmor profiles: %w", err)
	}
	return listed(string(profiles)), nil
}
