// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// GPUName is what clients call the device that [GPU] describes.
const GPUName = "nvidia.com/gpu=0"

// cdiDir is one of the two directories in which clients look for descriptions of
// devices. It is the rig's own.
const cdiDir = "/run/cdi"

// cdi is a description in the form that nvidia-ctk writes, with device nodes and a library
// (directory %[1]s) of no GPU.
const cdi = `
cdiVersion: "0.5.0"
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - {path: /dev/nvidia0, hostPath: %[1]s/nvidia0}
    - {path: /dev/dri/renderD128, hostPath: %[1]s/render, gid: 44}
    hooks:
    - hookName: createContainer
      path: %[1]s/nvidia-cdi-hook
      args: [nvidia-cdi-hook, create-symlinks, --link, "../renderD128::/dev/dri/by-path/pci-render"]
    - hookName: createContainer
      path: %[1]s/nvidia-cdi-hook
      args: [nvidia-cdi-hook, chmod, --mode, "755", --path, /dev/dri]
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  hooks:
  - hookName: createContainer
    path: %[1]s/nvidia-cdi-hook
    args: [nvidia-cdi-hook, create-symlinks, --link, "libcuda.so.550.54::/opt/lib/libcuda.so.1"]
  - hookName: createContainer
    path: %[1]s/nvidia-cdi-hook
    args: [nvidia-cdi-hook, enable-cuda-compat, --host-driver-version=550.54]
  - hookName: createContainer
    path: %[1]s/nvidia-cdi-hook
    args: [nvidia-cdi-hook, update-ldcache, --folder, /opt/lib]
  mounts:
  - hostPath: %[1]s/libcuda.so.550.54
    containerPath: /opt/lib/libcuda.so.550.54
    options: [ro, nosuid, nodev, rbind, rprivate]
`

// GPU describes a device of the kind of a GPU to the clients of this rig, for one test.
// Its hooks are NVIDIA's own program, which runs as the container's root and writes into
// the rootfs. It returns a script for a container that has the device, and what the script
// prints there; mode is what the client makes of nodes for which the description has none.
func GPU(t testing.TB, mode string) (script, want string) {
	t.Helper()
	hook, err := peer.Get(t.Context(), peer.NvidiaHook)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(Dir(), "gpu")
	t.Cleanup(func() {
		if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(cdiDir)); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755), os.MkdirAll(cdiDir, 0o755)); err != nil {
		t.Fatal(err)
	}
	for name, minor := range map[string]uint32{"nvidia0": 3, "render": 5} { // null and zero
		path := filepath.Join(dir, name)
		if err := errors.Join(unix.Mknod(path, unix.S_IFCHR, int(unix.Mkdev(1, minor))), os.Chmod(path, 0o660)); err != nil {
			t.Fatal(err)
		}
	}
	// ld.so's cache has what is a library.
	libraries, err := filepath.Glob("/lib/*/libc.so.6")
	if err != nil || len(libraries) == 0 {
		t.Fatalf("no library: %v", err)
	}
	library, err1 := os.ReadFile(libraries[0])
	// The container's root has to reach the program.
	program, err2 := os.ReadFile(filepath.Join(hook.Dir, "bin/nvidia-cdi-hook"))
	if err := errors.Join(
		err1, err2,
		testprogram.Write(filepath.Join(dir, "nvidia-cdi-hook"), string(program)),
		os.WriteFile(filepath.Join(dir, "libcuda.so.550.54"), library, 0o644),
		os.WriteFile(filepath.Join(cdiDir, "nvidia.yaml"), fmt.Appendf(nil, cdi, dir), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	script = `set -e
stat -c '%n %a %u:%g' /dev/nvidia0 /dev/dri /dev/dri/renderD128
readlink /dev/dri/by-path/pci-render
readlink /opt/lib/libcuda.so.1
stat -c '%n %u:%g' /etc/ld.so.cache
grep -q libc.so.6 /etc/ld.so.cache
grep -q /opt/lib /etc/ld.so.conf.d/*
echo x >/dev/nvidia0
head -c 2 /dev/dri/renderD128 | od -An -tx1
echo $NVIDIA_VISIBLE_DEVICES`
	want = "/dev/nvidia0 " + mode + " 0:0\n/dev/dri 755 0:0\n/dev/dri/renderD128 " + mode + " 0:44\n" +
		"../renderD128\nlibcuda.so.550.54\n/etc/ld.so.cache 0:0\n 00 00\nvoid"
	return script, want
}
