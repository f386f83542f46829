// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"os"
	"testing"

	"github.com/isolate-shim/isolate/cmd/isolatectl/check"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

func TestMain(m *testing.M) {
	lxcfs.MaybeChild()
	check.MaybeChild()
	os.Exit(rig.Main(m))
}
