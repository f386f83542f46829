// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/isolate-shim/isolate/integration/apt"
	"github.com/isolate-shim/isolate/integration/cache"
)

// debian is an item of unpacked packages of bookworm.
type debian struct {
	item     string
	packages []string
	// unneeded are packages that these depend on for what is not done here.
	unneeded []string
}

// QEMU is that of bookworm, since 10.0 is slower here, and 7.2 does all that is
// needed. A guest without a network card or a screen needs no firmware for one.
var emulatorPackages = debian{
	item: "vm-qemu", packages: []string{"qemu-system-x86"},
	unneeded: []string{"adduser", "debconf", "iso-codes", "ipxe-qemu", "passwd"},
}

// busybox cannot decompress the kernels of 5.10 and 6.1 itself.
var toolPackages = debian{item: "vm-tools", packages: []string{"busybox-static", "xz-utils"}}

func init() {
	for _, d := range []debian{emulatorPackages, toolPackages} {
		cache.Register(cache.Item{Name: d.item, Resolve: d.resolve, Make: d.make})
	}
}

func (d debian) resolve(ctx context.Context) (cache.Inputs, error) {
	closure, err := apt.Resolve(ctx, apt.Bookworm, d.packages...)
	if err != nil {
		return cache.Inputs{}, err
	}
	return cache.Inputs{Version: closure.Version(d.packages[0]), Parts: slices.Concat(closure.Strings(), d.unneeded)}, nil
}

func (d debian) make(ctx context.Context, w cache.Work) error {
	wanted := func(name string) bool { return !slices.Contains(d.unneeded, name) }
	return unpackOnly(ctx, apt.Bookworm, filepath.Dir(w.Dir), w.Dir, wanted, d.packages...)
}

// unpacked is a directory of packages that are not installed. Their programs
// run by the loader and the libraries that were unpacked with them.
type unpacked struct{ dir string }

const multiarch = "usr/lib/x86_64-linux-gnu"

func (u unpacked) path(name string) string { return filepath.Join(u.dir, name) }

// argv is how one of the programs is called.
func (u unpacked) argv(program string, arguments ...string) []string {
	return append([]string{
		u.path("lib64/ld-linux-x86-64.so.2"), "--library-path", u.path(multiarch), u.path(program),
	}, arguments...)
}

// busybox is static, and can be called by its path in the guest too.
func (u unpacked) busybox() string { return u.path("usr/bin/busybox") }

// emulator is the command line of QEMU for a machine.
func (u unpacked) emulator(machine ...string) []string {
	return u.argv("usr/bin/qemu-system-x86_64", append([]string{
		"-L", u.path("usr/share/qemu"), "-L", u.path("usr/share/seabios"),
	}, machine...)...)
}

// emulatorEnv lets QEMU find its own modules, which it would search beside the
// loader.
func (u unpacked) emulatorEnv() []string {
	return append(os.Environ(), "QEMU_MODULE_DIR="+u.path(multiarch+"/qemu"))
}
