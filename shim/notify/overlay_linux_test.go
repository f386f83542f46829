// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/ns"
)

func TestLayers(t *testing.T) {
	t.Parallel()
	for options, want := range map[string][2]string{
		"lowerdir=/l,upperdir=/u,workdir=w,userxattr\x00rest": {"/u", "w"},
		"upperdir=/a=b,workdir=,upperdir=/c\x00":              {"/c", ""},
		"upperdir=/u,workdir=/w":                              {}, // longer than a page
		"upperdir=/u\\,v,workdir=/w\x00":                      {},
		"\x00":                                                {},
		"":                                                    {},
	} {
		if upper, work := layers([]byte(options)); upper != want[0] || work != want[1] {
			t.Errorf("%q: %q, %q", options, upper, work)
		}
	}
}

func TestIsMount(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		arch uint32
		nr   int32
		want bool
	}{
		{unix.AUDIT_ARCH_X86_64, 165, true},
		{unix.AUDIT_ARCH_X86_64, 0x40000000 | 165, true},
		{unix.AUDIT_ARCH_X86_64, 155, false},
		{unix.AUDIT_ARCH_I386, 21, true},
		{unix.AUDIT_ARCH_I386, 165, false},
		{unix.AUDIT_ARCH_AARCH64, 40, true},
		{0, 21, false},
	} {
		if got := isMount(c.arch, c.nr); got != c.want {
			t.Errorf("%#x %d: %v", c.arch, c.nr, got)
		}
	}
}

// TestOverlay: an overlay that is to be mounted is told of, and then mounted or not by the
// kernel. Whatever becomes of the preparations, the call goes on.
func TestOverlay(t *testing.T) {
	c := listening(t, nil)
	var told []Overlay
	result, wait := error(nil), make(chan struct{})
	c.n.shelve = func(o Overlay) error {
		told = append(told, o)
		if its, err := ns.Of(o.Mounts); err != nil || its == (ns.ID{}) {
			t.Errorf("mount namespace: %v", err)
		}
		<-wait
		return result
	}
	c.start(t)
	for range 3 { // they hang
		start := time.Now()
		c.asked(t, order{Ask: "overlay"}, unix.ENOENT.Error())
		if took := time.Since(start); took < Limit || took > 10*Limit {
			t.Errorf("took %v", took)
		}
	}
	close(wait)
	result = errors.New("no")
	c.asked(t, order{Ask: "overlay"}, unix.ENOENT.Error())
	if len(told) != 4 || told[3].Upper != "/u" || told[3].Work != "w" {
		t.Errorf("told %+v", told)
	}
	c.asked(t, order{Ask: "tmpfs"}, unix.ENOENT.Error())
	if len(told) != 4 {
		t.Errorf("told %+v", told[4:])
	}
	// Beside it inner containers get their views.
	if a := c.do(t, order{}); a.Meminfo != "limited" {
		t.Errorf("saw %q", a.Meminfo)
	}
}
