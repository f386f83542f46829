// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
)

// TestProgramsInstalledLater installs programs in containers that run, as a package manager
// does: files get their names when they are complete. Their images keep the programs where
// nobody looks.
func TestProgramsInstalledLater(t *testing.T) {
	each(t, both, func(t *testing.T, n *node) {
		c := start(t, n, image.Docker26, inner(t), "sleep", "infinity")
		const programs = "/usr/sbin/dockerd /usr/bin/containerd /usr/bin/podman /usr/bin/buildah"
		c.sh(t, "mkdir /packages && mv "+programs+" /packages")
		c.restart(t)
		c.sh(t, "rmdir /var/lib/docker /var/lib/containerd /var/lib/containers")
		c.expect(t, "0", "grep -c /var/lib /proc/self/mountinfo; true")
		if _, err := os.Stat(filepath.Join(c.upper(t), "var/lib/docker")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("layer of a container that does not nest: %v, want no store", err)
		}
		t.Run("elsewhere", func(t *testing.T) { storesElsewhere(t, c) })

		// A name of no program, and one that is a program only in another directory.
		c.sh(t, "touch /usr/bin/x /root/dockerd")
		c.expect(t, "0", "grep -c /var/lib /proc/self/mountinfo; true")

		c.sh(t, "cp /packages/dockerd /usr/sbin/dockerd.dpkg-new && mv /usr/sbin/dockerd.dpkg-new /usr/sbin/dockerd")
		c.await(t, "grep ' /var/lib/docker ' /proc/self/mountinfo")
		c.expect(t, "711 0 0", "stat -c '%a %u %g' /var/lib/docker")
		c.sh(t, "mv /packages/containerd /usr/bin; nohup dockerd >/tmp/log 2>&1 & :")
		c.await(t, "docker version")
		c.expect(t, "overlay2", "docker info -f '{{.Driver}}'")
		c.sh(t, "docker load -i /inner.tar && docker tag "+innerReference+" i")
		c.expect(t, "second", "docker run --rm i cat /layer")
		// At once.
		c.expect(t, "overlay", "mv /packages/podman /usr/bin && podman info -f '{{.Store.GraphDriverName}}'")
		c.sh(t, "podman load -q -i /inner.tar")
		c.expect(t, "second", "podman run --rm --net=none "+innerReference+" cat /layer")

		c.restart(t)
		c.sh(t, "rm -f /run/docker.pid; nohup dockerd >/tmp/log 2>&1 & :")
		c.await(t, "docker version")
		c.expect(t, "overlay2", "docker info -f '{{.Driver}}'")
		c.expect(t, "second", "docker run --rm i cat /layer")
		c.expect(t, "overlay", "podman info -f '{{.Store.GraphDriverName}}'")
	})
}

// storesElsewhere runs programs that nobody saw arrive, with a store that nobody knows.
func storesElsewhere(t *testing.T, c *container) {
	const dockerd = "PATH=/packages:$PATH dockerd --data-root /srv/docker >/tmp/log 2>&1 & "
	c.sh(t, dockerd)
	c.await(t, "docker version")
	c.expect(t, "overlay2", "docker info -f '{{.Driver}}'")
	c.sh(t, "docker load -i /inner.tar")
	c.expect(t, "second", "docker run --rm --net=none "+innerReference+" cat /layer")
	c.expect(t, "1", "grep -c ' /srv/docker ' /proc/self/mountinfo")
	c.sh(t, "docker rmi "+innerReference+" && kill $(cat /run/docker.pid) && while [ -e /run/docker.pid ]; do sleep .1; done")

	// One by hand; 165 is mount(2).
	c.sh(t, `mkdir -p /one/l /one/u /one/w /one/m /usr/share/u /usr/share/w && cat >/one/mount <<'EOF'
#!/usr/bin/perl
my ($type, $at, $options) = ("overlay", "/one/m", "lowerdir=/one/l,upperdir=$ARGV[0],workdir=$ARGV[1],userxattr");
syscall(165, $type, $at, $type, 0, $options) == 0 or die "$!\n";
EOF
chmod 755 /one/mount && echo lower >/one/l/f`)
	c.expect(t, "new 0", "cd / && /one/mount /one/u /one/w && echo new >/one/m/f && echo $(cat /one/u/f) $(stat -c %u /one/u/f) && umount /one/m")
	// busybox' mount has a flag (MS_SILENT).
	c.expect(t, "new 0", "mkdir -p /two/l /two/u /two/w /two/m && busybox mount -t overlay two /two/m -o lowerdir=/two/l,upperdir=/two/u,workdir=/two/w && echo new >/two/m/f && echo $(cat /two/u/f) $(stat -c %u /two/u/f) && umount /two/m")
	// mount(8) of util-linux 2.39 makes other calls, and says what the kernel says.
	if r := c.try(t, "mkdir -p /three/l /three/u /three/w /three/m && mount -t overlay three /three/m -o lowerdir=/three/l,upperdir=/three/u,workdir=/three/w"); !strings.Contains(r.Stderr, "not supported as upperdir") {
		t.Errorf("mount(8): %s%v", r.Stderr, r.Err())
	}
	// In a directory of the image nothing can be done, and the log says what to do.
	if r := c.try(t, "/one/mount /usr/share/u /usr/share/w"); !strings.Contains(r.Stderr, "Invalid argument") {
		t.Errorf("in a directory of the image: %s%v", r.Stderr, r.Err())
	}
	if said := c.node.logged(t, c.id); !strings.Contains(said, `"/usr/share/u\" is on the container's own overlay`) {
		t.Errorf("the log does not say why: %s", said)
	}
}
