// SPDX-License-Identifier: Apache-2.0

package record

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Premounted names an overlay of the caller's that the shim has replaced by the
// container's own. What the fields mean, and how it is restored, is said by
// rootfs.Replacement, whose they are.
type Premounted struct {
	Path    string   `json:"path"`
	Source  string   `json:"source"`
	Was     string   `json:"was"`
	Dir     string   `json:"dir,omitempty"`
	Options []string `json:"options"`
}

func (p *Premounted) valid() error {
	if p == nil {
		return nil
	}
	for _, dir := range []string{p.Path, p.Dir} {
		if dir != "" && (!filepath.IsAbs(dir) || filepath.Clean(dir) != dir) {
			return fmt.Errorf("record: %q is not a clean absolute path", dir)
		}
	}
	if p.Path == "" || !strings.HasPrefix(p.Source, "isolate-") {
		return fmt.Errorf("record: replaced mount %q called %q", p.Path, p.Source)
	}
	return nil
}
