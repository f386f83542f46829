// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/linux/userns"
)

const memoryLimit = "1073741824"

// total prints the memory that a program sees.
const total = "sed -n 's/MemTotal: *//p' /proc/meminfo"

// TestContainerd runs containerd inside a container, and containers with ctr.
func TestContainerd(t *testing.T) {
	each(t, both, func(t *testing.T, n *node) {
		for _, name := range []image.Name{image.Docker20, image.Docker26} {
			t.Run(string(name), func(t *testing.T) {
				c := start(t, n, name, slices.Concat(inner(t), []string{"--memory-limit", memoryLimit}), "containerd")
				c.await(t, "ctr version")
				c.sh(t, "ctr images import /inner.tar")
				run := "ctr run --rm " + innerReference + " x "
				c.expect(t, "second", run+"cat /layer")
				c.expect(t, "gone", run+"sh -c 'test -e /usr/share || echo gone'")
				c.expect(t, "1048576 kB", run+total)
				c.expect(t, "overlay", run+"sed -n 's/^\\([a-z]*\\) \\/ .*/\\1/p' /proc/mounts")
				c.expect(t, "mounted", "ctr run --rm --privileged --net-host "+innerReference+" x sh -c 'mkdir /m && mount -t tmpfs t /m && echo mounted'")
				c.expect(t, "0 1000 60000", "ctr run --rm --uidmap 0:1000:60000 --gidmap 0:1000:60000 "+innerReference+" x cat /proc/self/uid_map | tr -s ' ' | sed 's/^ //'")
				c.restart(t)
				c.await(t, "ctr version")
				c.expect(t, "second", run+"cat /layer")
			})
		}
	})
}

// TestIsolateInside proves that isolate inside a container refuses in one sentence, the
// same in all places, also with ids that the outer container could spare; and that runc
// runs there.
func TestIsolateInside(t *testing.T) {
	programs, err := rig.Built(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	each(t, newest, func(t *testing.T, n *node) {
		rig.Configure(t, "[ids]\nsize = 131072")
		const bin = "/usr/local/bin/"
		c := start(t, n, image.Docker26, slices.Concat(inner(t),
			bind(programs["isolatectl"], bin+"isolatectl", "rbind:ro"),
			bind(programs["containerd-shim-isolate-v1"], bin+"containerd-shim-isolate-v1", "rbind:ro")), "containerd")
		c.await(t, "ctr version")
		c.sh(t, "ctr images import /inner.tar")
		c.expect(t, "second", "ctr run --rm "+innerReference+" x cat /layer")
		refused := func(what, script string) {
			t.Helper()
			r := c.try(t, script)
			// The report is wrapped.
			if said := strings.Join(strings.Fields(r.Stdout+r.Stderr), " "); r.Code == 0 || !strings.Contains(said, what+": "+userns.ErrInside.Error()) {
				t.Errorf("%s\nexited with %d, %q, want %q for the reason", script, r.Code, said, userns.ErrInside)
			}
		}
		refused("this host", "isolatectl check")
		for _, options := range []string{"", "--snapshotter native "} {
			refused("shim task", "ctr run --rm --runtime "+runtimeName+" "+options+innerReference+" y true")
		}
		c.sh(t, `mkdir -p /etc/isolate && printf '[ids]\npool = ["65536-131071"]\n[rootfs]\nfallback = "chown"\n' >/etc/isolate/config.toml`)
		refused("this host", "isolatectl check")
		refused("shim task", "ctr run --rm --runtime "+runtimeName+" "+innerReference+" y true")
	})
}

// TestPodman runs podman as root and as an ordinary user, and buildah.
func TestPodman(t *testing.T) {
	each(t, both, func(t *testing.T, n *node) {
		for _, name := range []image.Name{image.Docker20, image.Docker26} {
			t.Run(string(name), func(t *testing.T) {
				// newuidmap is a setuid program.
				flags := slices.Concat(inner(t), []string{"--memory-limit", memoryLimit, "--allow-new-privs"})
				c := start(t, n, name, flags, "sleep", "infinity")
				for _, part := range []struct {
					name string
					test func(*testing.T, *container)
				}{{"root", podmanRoot}, {"rootless", podmanRootless}, {"buildah", buildah}} {
					t.Run(part.name, func(t *testing.T) { part.test(t, c) })
				}
			})
		}
	})
}

func podmanRoot(t *testing.T, c *container) {
	c.sh(t, "podman load -q -i /inner.tar")
	c.expect(t, "overlay", "podman info -f '{{.Store.GraphDriverName}}'")
	run := "podman run --rm "
	c.expect(t, "second", run+innerReference+" cat /layer")
	c.expect(t, "1048576 kB", run+innerReference+" "+total)
	c.expect(t, "262144 kB", run+"-m 256m "+innerReference+" "+total)
	c.expect(t, "0", run+"--privileged "+innerReference+" id -u")
	c.expect(t, "0 1000 2000", run+"--uidmap 0:1000:2000 --gidmap 0:1000:2000 "+innerReference+" sh -c 'tr -s \" \" </proc/self/uid_map | sed \"s/^ //\"'")
	// The default network has the address of the node's.
	c.sh(t, "podman network create app")
	c.sh(t, "podman run -d --network app --name web -p 8081:80 "+innerReference+" httpd -f -h /www")
	if got, want := get(t, "http://"+c.address+":8081/"), "served by the inner image"; got != want {
		t.Errorf("published port shows %q, want %q", got, want)
	}
	c.expect(t, c.address, run+"--network app "+innerReference+" wget -qO- "+peers(t))
	c.expect(t, "0", "podman exec web id -u")
	c.expect(t, "served by the inner image", run+"--network app "+innerReference+" wget -qO- http://web/")
	c.sh(t, "podman rm -f -t 0 web && podman network rm app")
}

// podmanRootless is the case that needs a proc that may be mounted in a user
// namespace below the container's.
func podmanRootless(t *testing.T, c *container) {
	user := func(script string) string {
		return "exec setpriv --reuid user --regid user --init-groups env -i HOME=/home/user USER=user PATH=$PATH XDG_RUNTIME_DIR=/run/user/1000 sh -c '" + script + "'"
	}
	c.sh(t, "install -d -o user -g user -m 700 /run/user /run/user/1000 && chown root /run/user && chmod 755 /run/user")
	c.sh(t, user("podman load -q -i /inner.tar"))
	c.expect(t, "overlay", user(`podman info -f "{{.Store.GraphDriverName}}"`))
	c.expect(t, "second", user("podman run --rm "+innerReference+" cat /layer"))
	c.expect(t, "0 1000 1", user("podman run --rm "+innerReference+` sh -c "head -n1 /proc/self/uid_map" | tr -s " " | sed "s/^ //"`))
	c.expect(t, "1048576 kB", user("podman run --rm "+innerReference+` sed -n "s/MemTotal: *//p" /proc/meminfo`))
	c.expect(t, c.address, user("podman run --rm "+innerReference+" wget -qO- "+peers(t)))
}

func buildah(t *testing.T, c *container) {
	c.sh(t, `mkdir -p /tmp/b && printf '%s\n' 'FROM `+innerReference+`' 'RUN echo built >/built && rm /layer' >/tmp/b/Dockerfile`)
	for _, isolation := range []string{"oci", "chroot"} {
		c.sh(t, "buildah bud -q --pull-never --isolation "+isolation+" -t built-"+isolation+" /tmp/b")
		c.expect(t, "built removed", "podman run --rm built-"+isolation+" sh -c 'echo $(cat /built) $(test -e /layer || echo removed)'")
	}
}

// TestUserNamespaces makes user namespaces, and what programs want in them,
// inside a container.
func TestUserNamespaces(t *testing.T) {
	each(t, both, func(t *testing.T, n *node) {
		c := start(t, n, image.Docker26, []string{"--memory-limit", memoryLimit}, "sleep", "infinity")
		c.expect(t, "0\n1", "unshare -Urpfm --mount-proc sh -c 'id -u; ls /proc | grep -c ^1$'")
		c.expect(t, "lo", "unshare -Urnm sh -c 'mount -t sysfs s /sys && ls /sys/class/net'")
		as := func(want, script string) {
			t.Helper()
			r := c.as(t, "1000", script)
			if r.Stdout != want+"\n" || r.Err() != nil {
				t.Errorf("as user 1000: %s\nprinted %q, want %q, exited with %d\n%s", script, r.Stdout, want, r.Code, r.Stderr)
			}
		}
		as("0", "unshare -Urpfm --mount-proc id -u")
		as("1000", "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev id -u")
		as("closed", "ls /dev/.lxc 2>/dev/null || echo closed")
		as("closed", "cat /dev/.lxc/proc/meminfo 2>/dev/null || echo closed")
		c.expect(t, "1048576 kB", total)
		// FUSE: an overlay on the overlay.
		c.sh(t, "cd /tmp && mkdir l u w m && echo lower >l/f && fuse-overlayfs -o lowerdir=l,upperdir=u,workdir=w m")
		c.expect(t, "lower upper", "cd /tmp && echo upper >m/g && rm m/f && echo $(cat l/f) $(cat u/g) && umount m")
		as("lower", "cd /tmp && mkdir a && cd a && mkdir l u w m && echo lower >l/f && unshare -Urm sh -c 'fuse-overlayfs -o lowerdir=l,upperdir=u,workdir=w m && cat m/f'")
		c.expect(t, "tun0", "ip tuntap add dev tun0 mode tun && ls /sys/class/net | grep tun")
	})
}
