// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// cdi is a specification of the form that nvidia-ctk writes, with device nodes and a
// library (directory %[2]s) of no GPU.
const cdi = `
cdiVersion: "0.5.0"
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - {path: /dev/nvidia0, hostPath: %[2]s/nvidia0}
    - {path: /dev/dri/renderD128, hostPath: %[2]s/render, gid: 44}
    hooks:
    - hookName: createContainer
      path: %[1]s
      args: [nvidia-cdi-hook, create-symlinks, --link, "../renderD128::/dev/dri/by-path/pci-render"]
    - hookName: createContainer
      path: %[1]s
      args: [nvidia-cdi-hook, chmod, --mode, "755", --path, /dev/dri]
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  hooks:
  - hookName: createContainer
    path: %[1]s
    args: [nvidia-cdi-hook, create-symlinks, --link, "libcuda.so.550.54::/opt/lib/libcuda.so.1"]
  - hookName: createContainer
    path: %[1]s
    args: [nvidia-cdi-hook, enable-cuda-compat, --host-driver-version=550.54]
  - hookName: createContainer
    path: %[1]s
    args: [nvidia-cdi-hook, update-ldcache, --folder, /opt/lib]
  mounts:
  - hostPath: %[2]s/libcuda.so.550.54
    containerPath: /opt/lib/libcuda.so.550.54
    options: [ro, nosuid, nodev, rbind, rprivate]
`

// TestNvidiaDevice gives a container a device of the kind of a GPU, with NVIDIA's own
// program as hooks, which run as the container's root and write into its rootfs.
func TestNvidiaDevice(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			hook, err := peer.Get(t.Context(), peer.NvidiaHook)
			if err != nil {
				t.Fatal(err)
			}
			dir := shortDir(t)
			for name, minor := range map[string]uint32{"nvidia0": 3, "render": 5} { // null and zero
				path := filepath.Join(dir, name)
				if err := errors.Join(unix.Mknod(path, unix.S_IFCHR, int(unix.Mkdev(1, minor))), os.Chmod(path, 0o660)); err != nil {
					t.Fatal(err)
				}
			}
			// ld.so's cache has what is a library.
			library, err := filepath.Glob("/lib/*/libc.so.6")
			if err != nil || len(library) == 0 {
				t.Fatalf("no library: %v", err)
			}
			text, err := os.ReadFile(library[0])
			if err != nil {
				t.Fatal(err)
			}
			// The container's root has to reach the program.
			program, err := os.ReadFile(filepath.Join(hook.Dir, "bin/nvidia-cdi-hook"))
			if err := errors.Join(err, testprogram.Write(dir+"/nvidia-cdi-hook", string(program))); err != nil {
				t.Fatal(err)
			}
			// The rig's own.
			const specs = "/run/cdi"
			for name, text := range map[string][]byte{
				dir + "/libcuda.so.550.54": text,
				specs + "/nvidia.yaml":     fmt.Appendf(nil, cdi, dir+"/nvidia-cdi-hook", dir),
			} {
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			t.Cleanup(func() { os.RemoveAll(specs) })
			const script = `set -e
stat -c '%n %a %u:%g' /dev/nvidia0 /dev/dri /dev/dri/renderD128
readlink /dev/dri/by-path/pci-render /opt/lib/libcuda.so.1
stat -c '%u:%g' /etc/ld.so.cache
grep -q libc.so.6 /etc/ld.so.cache
grep -l /opt/lib /etc/ld.so.conf.d/*
echo x >/dev/nvidia0
head -c 2 /dev/dri/renderD128 | od -An -tx1
echo $NVIDIA_VISIBLE_DEVICES`
			want := []string{
				"/dev/nvidia0 660 0:0", "/dev/dri 755 0:0", "/dev/dri/renderD128 660 0:44",
				"../renderD128", "libcuda.so.550.54", "0:0", "00 00", "void",
			}
			r := m.run(t, []string{"--device", "nvidia.com/gpu=0"}, "sh", "-c", script)
			for _, line := range want {
				if !strings.Contains(r.Stdout, line+"\n") || r.Err() != nil {
					t.Errorf("want the line %q: %v\n%s%s", line, r.Err(), r.Stdout, r.Stderr)
				}
			}
		})
	}
}
