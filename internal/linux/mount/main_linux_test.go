// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"os"
	"testing"

	"github.com/isolate-shim/isolate/internal/testmounts"
)

func TestMain(m *testing.M) { os.Exit(testmounts.Main(m, programs)) }

// programs are what tests run in processes of their own, by name.
var programs = map[string]func(args []string) error{
	"contain": contain,
	"receive": receive,
	"remount": remount,
	"nested":  nested,
}
