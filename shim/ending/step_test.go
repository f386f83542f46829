// SPDX-License-Identifier: Apache-2.0

package ending

import (
	"testing"
	"time"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/fusectl"
)

func TestNext(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, c := range []struct {
		name string
		o    observed
		want step
	}{
		{"nothing is left", observed{since: -1}, step{done: true}},
		{"it has ended", observed{since: 20 * ms}, step{done: true}},
		{"at first", observed{since: -1, first: true}, step{kill: true, wait: killAllAfter}},
		{"no first process is known", observed{since: -1, others: true}, step{kill: true, all: true, wait: killAllAfter}},
		{"most have ended by then", observed{since: 50 * ms, first: true}, step{wait: 150 * ms}},
		{"the first one left others", observed{since: 20 * ms, others: true}, step{all: true, wait: again}},
		{"SIGKILL for one was not enough", observed{since: killAllAfter, first: true}, step{all: true, wait: again}},
		{"SIGKILL for all was not enough", observed{since: abortAfter, first: true}, step{all: true, abort: true, wait: again}},
		{"of the others neither", observed{since: abortAfter, others: true}, step{all: true, abort: true, wait: again}},
		{"nothing helps", observed{since: reportAfter, first: true}, step{all: true, abort: true, report: true, wait: time.Second}},
		{"it was said", observed{since: time.Minute, first: true, reported: true}, step{all: true, abort: true, wait: 15 * time.Second}},
		{"for hours", observed{since: time.Hour, first: true, reported: true}, step{all: true, abort: true, wait: seldom}},
	} {
		if got := next(c.o); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestConnectionsToAbort(t *testing.T) {
	t.Parallel()
	own := connections{
		ids:     []idmap.Range{{Container: 0, Host: 100000, Size: 1000}, {Container: 5000, Host: 300000, Size: 1}},
		foreign: map[uint32]bool{7: true},
		own:     map[uint32]bool{6: true, 7: true},
	}
	unread := own
	unread.unread = []string{"another"}
	for _, f := range []fusectl.Connection{
		{Device: 5, Owner: 100000, Waiting: 1}, // it may be the other's
		{Device: 6, Owner: 100000, Waiting: 1},
		{Device: 7, Owner: 100000, Waiting: 1},
		{Device: 6, Owner: 0, Waiting: 1},
	} {
		if got := unread.abort(f); got != (f == fusectl.Connection{Device: 6, Owner: 100000, Waiting: 1}) {
			t.Errorf("%v, beside a container whose mounts cannot be read: %v", f, got)
		}
	}
	for _, c := range []struct {
		name string
		c    fusectl.Connection
		want bool
	}{
		{"of its root", fusectl.Connection{Device: 5, Owner: 100000, Waiting: 1}, true},
		{"of its last user", fusectl.Connection{Device: 5, Owner: 100999, Waiting: 1}, true},
		{"of a second range", fusectl.Connection{Device: 5, Owner: 300000, Waiting: 1}, true},
		{"nobody waits", fusectl.Connection{Device: 5, Owner: 100000}, false},
		{"of the host", fusectl.Connection{Device: 5, Owner: 0, Waiting: 9}, false},
		{"of a user of the host", fusectl.Connection{Device: 5, Owner: 1000, Waiting: 9}, false},
		{"of the range below", fusectl.Connection{Device: 5, Owner: 99999, Waiting: 9}, false},
		{"of the range above", fusectl.Connection{Device: 5, Owner: 101000, Waiting: 9}, false},
		{"nobody's", fusectl.Connection{Device: 5, Owner: 1<<32 - 1, Waiting: 9}, false},
		{"shows in another's mounts", fusectl.Connection{Device: 7, Owner: 100000, Waiting: 1}, false},
	} {
		if got := own.abort(c.c); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
