// SPDX-License-Identifier: Apache-2.0

package testprogram

import (
	"fmt"
	"os/exec"
	"sync"
	"testing"
)

// TestProgramsOfParallelTests has each test start the program that it has just
// written, while the others write and start theirs.
func TestProgramsOfParallelTests(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var tests sync.WaitGroup
	for test := range 8 {
		tests.Go(func() {
			for round := range 50 {
				path := fmt.Sprintf("%s/%d-%d", dir, test, round)
				if err := Write(path, "#!/bin/sh\n"); err != nil {
					t.Error(err)
				}
				if err := exec.Command(path).Run(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	tests.Wait()
}
