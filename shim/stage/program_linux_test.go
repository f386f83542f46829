// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestPrograms(t *testing.T) {
	t.Parallel()
	rootfs, host := t.TempDir(), t.TempDir()
	for _, path := range []string{
		filepath.Join(rootfs, "usr/bin/dockerd"), filepath.Join(rootfs, "usr/local/bin/podman"),
		filepath.Join(host, "bin/kubelet"), filepath.Join(host, "file"),
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/../../../../../../../../../bin/sh", filepath.Join(host, "bin/crio")); err != nil {
		t.Fatal(err)
	}
	bind := func(source, destination string) specs.Mount {
		return specs.Mount{Destination: destination, Source: source, Options: []string{"rbind", "ro"}}
	}
	for _, test := range []struct {
		name     string
		mounts   []specs.Mount
		programs []string
		want     bool
	}{
		{name: "in the rootfs", programs: []string{"k3s", "dockerd"}, want: true},
		{name: "nowhere", programs: []string{"kubelet"}},
		{name: "in a directory that is bound", mounts: []specs.Mount{bind(host+"/bin", "/usr/local/bin/")}, programs: []string{"kubelet"}, want: true},
		{name: "below one", mounts: []specs.Mount{bind(host, "/usr/local")}, programs: []string{"kubelet"}, want: true},
		{name: "a file that is bound", mounts: []specs.Mount{bind(host+"/file", "/usr/bin/kubelet")}, programs: []string{"kubelet"}, want: true},
		{name: "covered", mounts: []specs.Mount{bind(host+"/bin", "/usr/local/bin")}, programs: []string{"podman"}},
		{name: "the last mount counts", mounts: []specs.Mount{bind(host+"/bin", "/usr/local/bin"), bind(rootfs+"/usr/local/bin", "/usr/local/bin")}, programs: []string{"kubelet"}},
		{name: "elsewhere", mounts: []specs.Mount{bind(host+"/bin", "/opt/bin")}, programs: []string{"kubelet"}},
		{name: "no bind", mounts: []specs.Mount{{Destination: "/usr/local/bin", Source: host + "/bin", Type: "tmpfs"}}, programs: []string{"kubelet"}},
		{name: "no such source", mounts: []specs.Mount{bind(host+"/none", "/usr/local/bin")}, programs: []string{"kubelet"}},
		// A link is followed as one with this root, like all others here.
		{name: "link out of the directory", mounts: []specs.Mount{bind(host+"/bin", "/usr/local/bin")}, programs: []string{"crio"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p, err := New(Linux, "", "").FindPrograms(rootfs, test.mounts)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := p.Any(test.programs...); got != test.want || err != nil {
				t.Errorf("Any(%q) = %v, %v; want %v", test.programs, got, err, test.want)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
