// SPDX-License-Identifier: Apache-2.0

package options

import (
	"errors"
	"fmt"
	"strings"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/pelletier/go-toml/v2"

	"github.com/isolate-shim/isolate/shim/config"
)

// taskTable is the part of a CRI options table that concerns a single task; the
// keys have the names of runc's options. BinaryName, Root and SystemdCgroup are
// settings, which package config reads.
type taskTable struct {
	NoPivotRoot    bool   `toml:"NoPivotRoot"`
	NoNewKeyring   bool   `toml:"NoNewKeyring"`
	ShimCgroup     string `toml:"ShimCgroup"`
	IOUID          uint32 `toml:"IoUid"`
	IOGID          uint32 `toml:"IoGid"`
	CriuImagePath  string `toml:"CriuImagePath"`
	CriuWorkPath   string `toml:"CriuWorkPath"`
	TaskAPIAddress string `toml:"TaskApiAddress"`
	TaskAPIVersion uint32 `toml:"TaskApiVersion"`
}

// readTask copies the keys of a task from a configuration text into o. Whether
// all keys of the text are known is for package config to say, which sees the
// same text; a text beyond its limit is left to it as well.
func readTask(name string, body []byte, o *runcoptions.Options) error {
	if len(body) > config.MaxSize {
		return nil
	}
	var t taskTable
	if err := toml.Unmarshal(body, &t); err != nil {
		// Of a mistake in both, config's wording names the place.
		if _, cerr := config.Default().Overlay(name, body); cerr != nil {
			err = cerr
		} else if de := (*toml.DecodeError)(nil); errors.As(err, &de) {
			row, _ := de.Position()
			err = &config.Error{
				Origin: fmt.Sprintf("%s:%d", name, row),
				Key:    strings.Join(de.Key(), "."),
				Reason: "wrong type or out of range",
			}
		}
		return fmt.Errorf("%w: %w", errUnknown, err)
	}
	o.NoPivotRoot, o.NoNewKeyring, o.ShimCgroup = t.NoPivotRoot, t.NoNewKeyring, t.ShimCgroup
	o.IoUid, o.IoGid = t.IOUID, t.IOGID
	o.CriuImagePath, o.CriuWorkPath = t.CriuImagePath, t.CriuWorkPath
	o.TaskApiAddress, o.TaskApiVersion = t.TaskAPIAddress, t.TaskAPIVersion //nolint:staticcheck // kept for clients of old
	return nil
}
