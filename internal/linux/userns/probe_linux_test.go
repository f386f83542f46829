// SPDX-License-Identifier: Apache-2.0

package userns_test

import (
	"testing"

	"github.com/isolate-shim/isolate/internal/linux/userns"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

func TestSupportedHere(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	testmounts.RequireFeature(t, userns.Supported())
}
