// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/shim/apparmor"
)

const innerReference = "docker.io/local/inner:1"

// TestContainerdInside runs containerd, with the newest runc, inside a container.
func TestContainerdInside(t *testing.T) {
	got := inside(t, peer.AppArmor4, []string{
		bind(program(t, peer.Containerd24), "/peer/containerd", "rbind:ro"),
		bind(program(t, peer.Runc15), "/peer/runc", "rbind:ro"),
		bind(t.TempDir(), "/var/lib/containerd", "rbind:rw"),
	}, "export PATH=/peer/containerd:/peer/runc:$PATH", `
mkdir -p /etc/containerd
echo 'version = 3
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.nri.v1.nri"]' >/etc/containerd/config.toml
containerd >/tmp/log 2>&1 &`, serves("/run/containerd/containerd.sock", "ctr version"),
		"ctr images import --local /inner.tar >/dev/null || tail /tmp/log",
		"ctr run --rm "+innerReference+" x sh -c 'cat /layer /proc/self/attr/current'",
		"ctr run --rm --privileged "+innerReference+" y sh -c 'mkdir /p && mount -t proc p /p && echo mounted'")
	want(t, got, "second", apparmor.Name+" (enforce)", "mounted")
}

// TestDockerInside runs Docker of Debian inside a container, from the directories
// that its packages unpack to: under emulation an image of it takes minutes to
// import.
func TestDockerInside(t *testing.T) {
	p, err := peer.Get(t.Context(), peer.Docker26)
	if err != nil {
		t.Fatal(err)
	}
	usr := filepath.Join(p.Dir, "root/usr")
	got := inside(t, peer.AppArmor3, []string{
		"--apparmor-default-profile=docker-default",
		bind(usr+"/bin", "/docker/bin", "rbind:ro"), bind(usr+"/sbin", "/docker/sbin", "rbind:ro"),
		bind(usr+"/lib", "/usr/lib", "rbind:ro"), bind(usr+"/lib64", "/usr/lib64", "rbind:ro"),
		bind(t.TempDir(), "/var/lib/docker", "rbind:rw"),
	}, "export PATH=/links:/docker/sbin:/docker/bin:$PATH", `
mkdir /links
for i in iptables ip6tables iptables-save iptables-restore ip6tables-save ip6tables-restore; do ln -s /docker/sbin/xtables-nft-multi /links/$i; done
dockerd >/tmp/log 2>&1 &`, serves("/var/run/docker.sock", "docker version"),
		"docker info -f '{{.Driver}}' || tail /tmp/log; docker load -qi /inner.tar >/dev/null",
		"docker run --rm "+innerReference+" cat /layer /proc/self/attr/current",
		"docker run --rm --privileged "+innerReference+" sh -c 'mkdir /p && mount -t proc p /p && echo mounted'")
	want(t, got, "overlay2", "second", apparmor.Name+" (enforce)", "mounted")
}

// serves is a script that succeeds when a program answers. Asking takes more of an
// emulated processor than to start that program does, so that its socket is waited
// for first.
func serves(socket, ask string) string {
	return "for i in $(seq 20); do [ -S " + socket + " ] && exec " + ask + " >/dev/null 2>&1; sleep 1; done; false"
}

// inside starts a daemon in a container under a profile that a parser has loaded,
// waits until it is ready, and runs scripts, each as a process of its own after some
// preparation. It returns what they print. Nothing that they do may be denied.
func inside(t *testing.T, p peer.Name, flags []string, prepare, daemon, ready string, scripts ...string) (words []string) {
	t.Helper()
	rig.Require(t, rig.Root, rig.AppArmor, rig.CgroupV2)
	load(t, p)
	t.Cleanup(func() { remove(t, "docker-default") })
	i, err := image.Get(t.Context(), image.Inner)
	if err != nil {
		t.Fatal(err)
	}
	n := newest(t)
	id := n.start(t, append(flags, bind(i.Path, "/inner.tar", "rbind:ro"))...)
	log := watch(t)
	n.exec(t, id, prepare+"\n"+daemon).Must(t)
	if !n.await(t, id, prepare+"\n"+ready) {
		t.Fatalf("not ready: %s\ndenied: %q", n.exec(t, id, "cat /tmp/log; ps; cat /proc/*/wchan").Stdout, denied(log.next(t), apparmor.Name))
	}
	for _, script := range append([]string{label}, scripts...) {
		r := n.exec(t, id, prepare+"\n"+script)
		if r.Err() != nil {
			t.Error(r.Err())
		}
		words = append(words, strings.Fields(r.Stdout)...)
	}
	if d := denied(log.next(t), apparmor.Name); len(d) > 0 {
		t.Errorf("denied:\n%s", strings.Join(d, "\n"))
	}
	return words
}

// want compares words of output, behind the label that is printed first.
func want(t *testing.T, got []string, text ...string) {
	t.Helper()
	want := strings.Join(append([]string{apparmor.Name, "(enforce)"}, text...), " ")
	if got := strings.Join(got, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestSystemdInside boots systemd under the profile, and stops it.
func TestSystemdInside(t *testing.T) {
	rig.Require(t, rig.Root, rig.AppArmor, rig.CgroupV2)
	load(t, peer.AppArmor3)
	n := newest(t)
	slim := node{Machine: n.Machine, image: n.Image(t, image.SystemdSlim)}
	log := watch(t)
	id := slim.startImage(t, nil, []string{"/sbin/init", "--unit=basic.target"})
	if !slim.await(t, id, "systemctl is-system-running 2>/dev/null | busybox grep -qE 'running|degraded'") {
		t.Fatalf("not running: %s", slim.exec(t, id, "systemctl is-system-running; systemctl list-jobs").Stdout)
	}
	r := slim.exec(t, id, "busybox cat /proc/1/comm /proc/1/attr/current; systemctl is-system-running; systemctl list-units --failed --no-legend --plain; "+
		"systemd-run -q --wait --pipe -p PrivateTmp=yes -p ProtectSystem=strict -p DynamicUser=no busybox cat /proc/self/attr/current")
	if got, want := r.Stdout, "systemd\n"+apparmor.Name+" (enforce)\nrunning\n"+apparmor.Name+" (enforce)\n"; got != want {
		t.Errorf("got\n%s%s\nwant\n%s", got, r.Stderr, want)
	}
	n.Ctr(t.Context(), "tasks", "kill", id).Must(t)
	slim.awaitEnd(t, id)
	if d := denied(log.next(t), apparmor.Name); len(d) > 0 {
		t.Errorf("denied:\n%s", strings.Join(d, "\n"))
	}
}
