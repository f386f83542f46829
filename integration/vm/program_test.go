// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

// TestGuestIsStandard: the guest's program is built from what is embedded, and finds
// no other package.
func TestGuestIsStandard(t *testing.T) {
	t.Parallel()
	err := eachSource(func(path string, text []byte) error {
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if strings.Contains(name, ".") && name != "github.com/isolate-shim/isolate/integration/vm/wire" {
				t.Errorf("%s imports %s", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
