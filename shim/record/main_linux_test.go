// SPDX-License-Identifier: Apache-2.0

package record

import (
	"os"
	"testing"

	"github.com/isolate-shim/isolate/internal/testmounts"
)

func TestMain(m *testing.M) { os.Exit(testmounts.Run(m)) }
