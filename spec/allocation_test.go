// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"os"
	"testing"
)

// TestAllocations bounds what it takes to read and write back the config.json of an
// ordinary container: 1,200, and 1,000 more when a json.Decoder read it. It is not parallel, since everybody's allocations are counted.
func TestAllocations(t *testing.T) {
	data, err := os.ReadFile("testdata/nest-ctr/in.json")
	if err != nil {
		t.Fatal(err)
	}
	n := testing.AllocsPerRun(20, func() {
		doc, err := Parse(data)
		if err == nil {
			_, err = doc.JSON()
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%.0f allocations for %d bytes", n, len(data))
	if n > 2000 {
		t.Errorf("%.0f allocations for %d bytes", n, len(data))
	}
}
