// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/thread"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

func TestMain(m *testing.M) { os.Exit(testmounts.Main(m, programs)) }

// programs are what tests run in processes of their own, by name.
var programs = map[string]func(args []string) error{
	"workload": workload,
	"inspect":  inspect,
}

// TestAs: host root cannot create in a container's overlay, the container's root
// acting for it can.
func TestAs(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	testmounts.RequireFeature(t, OverlayBy(MethodPrivate, testmounts.Dir(t)))
	dir := testmounts.Dir(t)
	o := stack(t, dir, 2)
	m := idmap.Contiguous(300000, 65536)
	testmounts.Attach(t, build(t, o, testmounts.Userns(t, m), m, MethodAuto), dir+"/rootfs")
	if err := os.Mkdir(dir+"/rootfs/host", 0o755); !errors.Is(err, unix.EOVERFLOW) {
		t.Errorf("host root: %v", err)
	}
	root, _ := m.Root()
	testmounts.Check(t, thread.WithFSIDs(uint32(root.UID), uint32(root.GID), func() error { return os.Mkdir(dir+"/rootfs/container", 0o755) }))
	testmounts.WantOwner(t, o.Upper+"/container", "0:0")
	if err := thread.WithFSIDs(uint32(root.UID), uint32(root.GID), func() error { return os.ErrExist }); !errors.Is(err, os.ErrExist) {
		t.Errorf("error %v", err)
	}
}
