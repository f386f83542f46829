// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestUnreadableRecord ends containers whose record cannot be read, or is of a later
// version, by their shim or after it was killed: nothing of them is left, and their id
// can be used again.
func TestUnreadableRecord(t *testing.T) {
	rig.Require(t, rig.Root)
	rig.Configure(t, oneRange)
	h := hostOf(t, peer.Containerd24)
	for name, change := range map[string]func(string) string{
		"cut off": func(text string) string { return text[:len(text)/2] },
		"later version": func(text string) string {
			return strings.Replace(text, `{"version":1,`, `{"version":2,"shiny":{"x":1},`, 1)
		},
		"empty": func(string) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			before := rig.MustSnapshot(t)
			for _, kill := range []bool{false, true} {
				h.start(t, "a")
				const file = "/run/isolate/default/a/record.json"
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(change(string(text))), 0o600); err != nil {
					t.Fatal(err)
				}
				if kill {
					killShim(t, "a")
					rig.Eventually(t, "clean-up", func() bool { _, err := os.Lstat(file); return errors.Is(err, fs.ErrNotExist) })
				}
				h.Container("a").Remove(t)
			}
			rig.MustMatch(t, before)
			h.run(t, "a", nil, "true").Must(t)
			rig.MustMatch(t, before)
		})
	}
}
