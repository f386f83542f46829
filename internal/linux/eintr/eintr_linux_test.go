// SPDX-License-Identifier: Apache-2.0

package eintr

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRepeats(t *testing.T) {
	t.Parallel()
	for _, end := range []error{nil, unix.EBADF} {
		calls := 0
		got, err := Get(func() (int, error) {
			calls++
			if calls < 3 {
				return 0, os.NewSyscallError("read", unix.EINTR)
			}
			return calls, end
		})
		if got != 3 || !errors.Is(err, end) {
			t.Errorf("got %d, %v; want 3, %v", got, err, end)
		}
	}
}
