// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// upper is the container's writable layer on disk.
func (c *container) upper(t *testing.T) string {
	t.Helper()
	mounts := c.node.Ctr(t.Context(), "snapshots", "mounts", "/target", c.id).Must(t)
	found := regexp.MustCompile(`upperdir=([^, ]+)`).FindStringSubmatch(mounts)
	if found == nil {
		t.Fatalf("snapshot has no upper layer: %s", mounts)
	}
	return found[1]
}

// usage is how much disk space containerd counts for the container, in bytes.
// flags name a snapshotter other than the default.
func (c *container) usage(t *testing.T, flags ...string) int {
	t.Helper()
	out := c.node.Ctr(t.Context(), slices.Concat([]string{"snapshots"}, flags, []string{"usage", "-b", c.id})...).Must(t)
	fields := strings.Fields(out[strings.Index(out, "\n")+1:])
	size, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatalf("usage of snapshot is %q", out)
	}
	return size
}

// TestStores looks at the directories in which inner containers are kept.
func TestStores(t *testing.T) {
	each(t, both, func(t *testing.T, n *node) {
		t.Run("of the image", storesOfTheImage(n))
		t.Run("accounted", storesAccounted(n))
		t.Run("volume", storesVolume(n))
		t.Run("volume above and below", storesVolumeAround(n))
		t.Run("read-only", storesReadOnly(n))
		t.Run("unused", storesUnused(n))
	})
}

// storesOfTheImage looks at what the image has at the path of a store, which
// must not come back once it is deleted.
func storesOfTheImage(n *node) func(*testing.T) {
	return func(t *testing.T) {
		c := start(t, n, image.Docker20, nil, "sleep", "infinity")
		const dir = "/var/lib/docker/of-the-image"
		c.expect(t, "of the image", "cat "+dir+"/note")
		c.expect(t, "4755 0 0", "stat -c '%a %u %g' "+dir+"/id")
		c.expect(t, "1000 33 note", "echo $(stat -c '%u %g' "+dir+"/link) $(readlink "+dir+"/link)")
		c.expect(t, "755 0 0", "stat -c '%a %u %g' /var/lib")
		c.sh(t, "rm "+dir+"/note && echo new >"+dir+"/new")
		c.restart(t)
		c.expect(t, "id link new", "echo $(ls "+dir+")")
	}
}

// storesAccounted proves that what is stored belongs to the container's layer.
func storesAccounted(n *node) func(*testing.T) {
	return func(t *testing.T) {
		c := start(t, n, image.Docker26, nil, "sleep", "infinity")
		upper, before := c.upper(t), c.usage(t)
		c.sh(t, "dd if=/dev/urandom of=/var/lib/docker/f bs=1M count=8 2>/dev/null && chown 1000:33 /var/lib/docker/f")
		var stat unix.Stat_t
		if err := unix.Stat(filepath.Join(upper, "var/lib/docker/f"), &stat); err != nil || stat.Uid != 1000 || stat.Gid != 33 {
			t.Errorf("file in the store is owned by %d:%d on disk, %v, want 1000:33", stat.Uid, stat.Gid, err)
		}
		if grown := c.usage(t) - before; grown < 8<<20 {
			t.Errorf("8 MiB in the store made the container's layer %d bytes larger", grown)
		}
		n.Ctr(t.Context(), "tasks", "rm", "--force", c.id).Must(t)
		n.Ctr(t.Context(), "containers", "rm", c.id).Must(t)
		// containerd removes snapshots when it collects garbage.
		rig.Eventually(t, "end of the store of a removed container", func() bool {
			_, err := os.Stat(filepath.Join(upper, "var/lib/docker/f"))
			return errors.Is(err, fs.ErrNotExist)
		})
	}
}

// storesVolume proves that a volume of the user's is left alone.
func storesVolume(n *node) func(*testing.T) {
	return func(t *testing.T) {
		volume := t.TempDir()
		if err := os.WriteFile(filepath.Join(volume, "of-the-volume"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		flags := slices.Concat(bind(volume, "/var/lib/docker", "rbind:rw"), inner(t))
		c := start(t, n, image.Docker20, flags, "dockerd")
		c.await(t, "docker version")
		c.expect(t, "of-the-volume", "cd /var/lib/docker && ls -d of-*")
		c.expect(t, "overlay2", "docker info -f '{{.Driver}}'")
		c.sh(t, "docker load -i /inner.tar && docker run --rm "+innerReference+" true")
		var stat unix.Stat_t
		if err := unix.Stat(filepath.Join(volume, "overlay2"), &stat); err != nil || stat.Uid != 0 {
			t.Errorf("what Docker made in the volume is owned by %d, %v, want 0", stat.Uid, err)
		}
	}
}

// storesVolumeAround proves the same of volumes above and below a store.
func storesVolumeAround(n *node) func(*testing.T) {
	return func(t *testing.T) {
		above, below := t.TempDir(), t.TempDir()
		flags := slices.Concat(bind(above, "/var/lib", "rbind:rw"), bind(below, "/var/lib/docker/volumes", "rbind:rw"))
		c := start(t, n, image.Docker20, flags, "sleep", "infinity")
		c.expect(t, "docker", "ls /var/lib") // which the mount below it needs
		c.sh(t, "echo volume >/var/lib/docker/volumes/f && echo above >/var/lib/docker/f && echo above >/var/lib/f")
		for path, want := range map[string]string{filepath.Join(below, "f"): "volume\n", filepath.Join(above, "docker/f"): "above\n", filepath.Join(above, "f"): "above\n"} {
			if text, err := os.ReadFile(path); err != nil || string(text) != want {
				t.Errorf("%s holds %q, %v, want %q", path, text, err, want)
			}
		}
		flags = slices.Concat(bind(below, "/var/lib/docker/volumes", "rbind:rw"), inner(t))
		c = start(t, n, image.Docker20, flags, "dockerd")
		c.await(t, "docker version")
		c.expect(t, "overlay2", "docker info -f '{{.Driver}}'")
		c.sh(t, "docker load -i /inner.tar && docker volume create kept && docker run --rm -v kept:/v "+innerReference+" sh -c 'echo kept >/v/f'")
		if text, err := os.ReadFile(filepath.Join(below, "kept/_data/f")); err != nil || string(text) != "kept\n" {
			t.Errorf("a volume of Docker's holds %q, %v", text, err)
		}
	}
}

// storesReadOnly proves that a read-only rootfs stays so, store or not.
func storesReadOnly(n *node) func(*testing.T) {
	return func(t *testing.T) {
		c := start(t, n, image.Docker20, []string{"--read-only"}, "sleep", "infinity")
		c.expect(t, "of the image", "cat /var/lib/docker/of-the-image/note")
		for _, path := range []string{"/x", "/var/lib/docker/x"} {
			if r := c.try(t, "LC_ALL=C touch "+path); !strings.Contains(r.Stderr, "Read-only file system") {
				t.Errorf("touch %s: %s%v", path, r.Stderr, r.Err())
			}
		}
		volume := t.TempDir()
		flags := slices.Concat([]string{"--read-only"}, bind(volume, "/var/lib/docker", "rbind:rw"), inner(t))
		for _, dir := range []string{"/tmp", "/etc/docker"} {
			flags = append(flags, "--mount", "type=tmpfs,src=tmpfs,dst="+dir)
		}
		c = start(t, n, image.Docker20, flags, "dockerd")
		c.await(t, "docker version")
		c.sh(t, "docker load -i /inner.tar && docker run --rm "+innerReference+" true")
	}
}

// storesUnused proves that an image without such programs gets nothing.
func storesUnused(n *node) func(*testing.T) {
	return func(t *testing.T) {
		c := start(t, n, image.Demo, nil, "sleep", "infinity")
		c.expect(t, "0", "grep -c /var/lib /proc/self/mountinfo; true")
		if _, err := os.Stat(filepath.Join(c.upper(t), "var/lib")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("layer of a container that does not nest: %v, want no var/lib", err)
		}
	}
}

// TestNativeSnapshotter runs Docker on a rootfs that is no overlay, of which the
// store is simply a part.
func TestNativeSnapshotter(t *testing.T) {
	rig.Require(t, rig.Root)
	n := &node{rig.MachineFor(t, rig.Config{Runc: peer.Runc15, Snapshotter: "native"})}
	run(t, n, image.Docker20, []string{"--snapshotter", "native"}, "true").Must(t)
	rig.NothingLeft(t)
	c := start(t, n, image.Docker20, append(inner(t), "--snapshotter", "native"), "dockerd")
	c.await(t, "docker version")
	c.expect(t, "of the image", "cat /var/lib/docker/of-the-image/note")
	c.expect(t, "overlay2", "docker info -f '{{.Driver}}'")
	c.sh(t, "docker load -i /inner.tar && rm /var/lib/docker/of-the-image/note")
	c.expect(t, "second", "docker run --rm "+innerReference+" cat /layer")
	ids := c.sh(t, "cat /proc/self/uid_map")

	// With other ids, what is stored is there, and what was deleted is not.
	c.restart(t)
	if again := c.sh(t, "cat /proc/self/uid_map"); again == ids {
		t.Errorf("same ids as before: %s", again)
	}
	c.await(t, "docker version")
	c.expect(t, "second", "docker run --rm "+innerReference+" cat /layer")
	c.expect(t, "id link", "echo $(ls /var/lib/docker/of-the-image)")

	small := c.usage(t, "--snapshotter", "native")
	c.sh(t, "dd if=/dev/urandom of=/var/lib/docker/f bs=1M count=8 2>/dev/null")
	if grown := c.usage(t, "--snapshotter", "native") - small; grown < 8<<20 {
		t.Errorf("8 MiB in the store made the container's snapshot %d bytes larger", grown)
	}
	c = start(t, n, image.Docker20, []string{"--snapshotter", "native", "--read-only"}, "sleep", "infinity")
	if r := c.try(t, "LC_ALL=C touch /var/lib/docker/x"); !strings.Contains(r.Stderr, "Read-only file system") {
		t.Errorf("touch in a store of a read-only rootfs: %s%v", r.Stderr, r.Err())
	}
}
