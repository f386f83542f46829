// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slowTable is a mountinfo without an end, in effect.
type slowTable struct{}

func (slowTable) Read(b []byte) (int, error) {
	time.Sleep(10 * time.Millisecond)
	return min(len(b), 4<<10), nil
}

func TestTableWithoutEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		n, err := io.Copy(io.Discard, &Table{Mountinfo: slowTable{}, Until: start.Add(time.Second)})
		if d := time.Since(start); !errors.Is(err, ErrSlowTable) || n < shortTable || d > 1100*time.Millisecond {
			t.Errorf("%d bytes, %v after %v", n, err, d)
		}
	})
	short := strings.NewReader(strings.Repeat("x", shortTable))
	if n, err := io.Copy(io.Discard, &Table{Mountinfo: short}); err != nil || n != shortTable {
		t.Errorf("%d bytes of a short table, %v", n, err)
	}
}
