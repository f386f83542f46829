// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/programs"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestDockerInPod runs Docker with a network of its own in a pod with another
// container: for that it asks for the administration of the pod's network.
func TestDockerInPod(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	n := podNode(t, rig.Config{})
	n.load(t, image.Docker26)
	inner, err := image.Get(t.Context(), image.Inner)
	if err != nil {
		t.Fatal(err)
	}
	config := adopted()
	p := n.pod(t, config)
	p.container(t, security(config, message{}))
	docker := p.container(t, merge(security(config, message{"capabilities": message{"add_capabilities": []string{"SYS_ADMIN", "NET_ADMIN"}}}), message{
		"image": message{"image": "docker.io/local/docker:26.1"}, "command": []string{"dockerd"},
		"mounts": []message{mount(config, filepath.Dir(inner.Path), "/images")},
	}))
	rig.Eventually(t, "Docker", func() bool { return docker.try("docker version").Code == 0 })
	docker.sh(t, "docker load -i /images/"+filepath.Base(inner.Path))
	const serves = "docker run -d --name web docker.io/local/inner:1 httpd -f -h /www >/dev/null && docker run --rm docker.io/local/inner:1 wget -qO- http://$(docker inspect -f '{{.NetworkSettings.IPAddress}}' web)/"
	if got := docker.sh(t, serves); got != "served by the inner image" {
		t.Errorf("inner container printed %q", got)
	}
}

// TestSystemdInPod boots a system in a pod that asks for nothing, and prints what programs
// see there.
func TestSystemdInPod(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	n := podNode(t, rig.Config{})
	n.load(t, image.Systemd257)
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			config := kind.config()
			p := n.pod(t, config)
			begun := time.Now()
			system := p.container(t, merge(security(config, message{}), message{
				"image": message{"image": "docker.io/local/systemd:257"}, "command": []string{"/sbin/init"},
				"linux": message{"resources": message{"memory_limit_in_bytes": 1 << 30, "cpu_period": 100000, "cpu_quota": 100000}},
			}))
			rig.Eventually(t, "boot", func() bool { return system.try("systemctl is-active multi-user.target containerd").Code == 0 })
			// Docker is a service of the image too, but wants to make a network.
			if got := system.sh(t, "systemctl list-units --failed --plain --no-legend | grep -v ^docker.s || true"); got != "" {
				t.Errorf("failed are %q", got)
			}
			rows := programs.See(t, "pod, "+kind.name, func() time.Duration { return time.Since(begun) }, func() string { return system.sh(t, programs.Ask) })
			t.Log("\n" + strings.Join(rows, "\n"))
		})
	}
}

func (n *node) load(t *testing.T, name image.Name) {
	t.Helper()
	if _, err := n.ImportInto(t.Context(), "k8s.io", name); err != nil {
		t.Fatal(err)
	}
}
