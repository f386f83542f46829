// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/shim/version"
)

// Programs are the two that are installed, by name.
type Programs map[string][]byte

// Open reads the programs from a directory: by default the running program's.
// Both have to be of one version.
func Open(ctx context.Context, dir string) (Programs, error) {
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find own program: %w", err)
		}
		dir = filepath.Dir(self)
	}
	programs := Programs{}
	for _, name := range []string{host.ShimName, ctlName} {
		file := filepath.Join(dir, name)
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read program: %w; name its directory by --from", err)
		}
		programs[name] = data
	}
	// Not the other way round: isolatectl is what runs.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	shim := filepath.Join(dir, host.ShimName)
	printed, err := exec.CommandContext(ctx, shim, "-v").Output()
	if err != nil {
		return nil, fmt.Errorf("run %s -v: %w", shim, err)
	}
	if said := strings.TrimSpace(string(printed)); said != version.String() {
		return nil, fmt.Errorf("%s is %s, this is %s: install both of one version", shim, said, version.String())
	}
	return programs, nil
}
