// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/isolate-shim/isolate/spec"
)

// NetSysctlFile is the file of a sysctl of a network namespace. The name of a sysctl has
// dots, or slashes if a part of it has dots (sysctl(8)).
func NetSysctlFile(key string) (string, error) {
	name := key
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		name = strings.NewReplacer(".", "/", "/", ".").Replace(key)
	}
	file := filepath.Join("/proc/sys", name)
	if !strings.HasPrefix(file, "/proc/sys/net/") {
		return "", fmt.Errorf("sysctl %s: not a sysctl of a network namespace: %w", key, spec.ErrRefused)
	}
	return file, nil
}
