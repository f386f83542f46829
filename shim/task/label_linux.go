// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/isolate-shim/isolate/shim/apparmor"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/spec"
)

// appArmor looks up what the host has of AppArmor.
func appArmor(cfg config.Config) (spec.AppArmor, error) {
	if cfg.AppArmor == config.AppArmorKeep || !apparmor.Enabled() {
		return spec.AppArmor{}, nil
	}
	host := spec.AppArmor{Enabled: true}
	loaded, err := apparmor.Loaded()
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return host, err
	}
	// A shim that is confined itself may not be allowed to know. Then it might not
	// be allowed to use the profile either.
	if loaded {
		host.Profile = apparmor.Name
	}
	return host, nil
}

// selinuxCheck is a file of the kernel to which a label can be written only if the
// loaded policy has it (selinux_check_context in security/selinux/selinuxfs.c).
const selinuxCheck = "/sys/fs/selinux/context"

// selinuxTypes returns which of spec.NestingTypes the loaded policy has. It returns none
// for a label whose type must not be changed.
func selinuxTypes(label string) ([]string, error) {
	if !spec.OrdinaryLabel(label) {
		return nil, nil
	}
	var have []string
	for _, name := range spec.NestingTypes {
		err := os.WriteFile(selinuxCheck, append([]byte(spec.LabelOfType(label, name)), 0), 0)
		switch {
		case err == nil:
			have = append(have, name)
		case errors.Is(err, syscall.EINVAL), errors.Is(err, fs.ErrPermission):
		case errors.Is(err, fs.ErrNotExist):
			return nil, nil // SELinux is off, and the runtime says so
		default:
			return nil, fmt.Errorf("ask SELinux for type %s: %w", name, err)
		}
	}
	return have, nil
}
