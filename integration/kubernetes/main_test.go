// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"os"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }
