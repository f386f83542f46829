// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// lockConditions are the circumstances under which read-only volumes stay
// read-only.
var lockConditions = []struct {
	name    string
	config  []string
	options []string
	// mounts is set if the container may mount, so that only the kernel's lock
	// can be in the way.
	mounts bool
}{
	{"nesting with its own seccomp profile", nil, nil, true},
	{"nesting without seccomp", []string{`seccomp = "keep"`}, nil, true},
	{"nesting with the caller's seccomp profile widened", nil, []string{"--seccomp"}, true},
	{"nesting with the caller's seccomp profile", []string{`seccomp = "keep"`}, []string{"--seccomp"}, false},
	{"privileged without nesting", []string{`nesting = "off"`}, []string{"--privileged", "--privileged-without-host-devices"}, true},
	{"CAP_SYS_ADMIN without nesting, with seccomp", []string{`nesting = "off"`}, []string{"--seccomp", "--cap-add", "CAP_SYS_ADMIN"}, true},
}

// TestVolumeLocks proves that nobody inside a container can take read-only,
// nosuid, nodev and noexec from a volume, whatever the container may do besides.
func TestVolumeLocks(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			for _, condition := range lockConditions {
				t.Run(condition.name, func(t *testing.T) {
					rig.Require(t, rig.Root)
					m := demoMachine(t, runtime, condition.config...)
					tree := lockTree(t)
					options := slices.Concat(withInside(t), condition.options,
						volume(tree+"/dir", "/ro", "rbind:ro"),
						volume(tree+"/dir", "/plain", "bind:ro"),
						volume(tree+"/file", "/file", "rbind:ro"),
						volume(tree+"/socket", "/socket", "rbind:ro"),
						volume(tree+"/tmpfs", "/tmpfs", "rbind:ro"),
						volume(tree+"/parent", "/parent", "rbind:rro"),
						volume(tree+"/dir", "/all", "rbind:ro:nosuid:nodev:noexec"),
						volume(tree+"/dir", "/noexec", "rbind:rw:noexec:nosuid:nodev"),
						volume(tree+"/restricted", "/inherited", "rbind:rw"),
						volume(tree+"/restricted", "/cleared", "rbind:ro:suid:dev:exec"))
					got := answer[[]attempt](t, m.run(t, options, "/inside", "unlock", "--control", "--nested",
						"ro=/ro", "ro=/plain", "ro=/file", "ro=/socket", "ro=/tmpfs", "ro=/parent", "ro=/parent/sub",
						"ro,nosuid,nodev,noexec=/all", "nosuid,nodev,noexec=/noexec",
						"nosuid,nodev,noexec=/inherited", "ro,nosuid,nodev,noexec=/cleared"))
					checkLocks(t, got, condition.mounts)
					if tried := len(got); tried < 100 {
						t.Errorf("only %d attempts were made", tried)
					}
					if _, err := os.Lstat(tree + "/dir/.written"); err == nil {
						t.Error("a file was written to the read-only volume")
					}
				})
			}
		})
	}
}

// checkLocks wants every attempt to be refused, and the control to tell whether
// it was for the lock.
func checkLocks(t *testing.T, got []attempt, mounts bool) {
	t.Helper()
	for _, a := range got {
		want := "EPERM"
		switch {
		case a.Path == "control" && mounts:
			want = ""
		case strings.HasSuffix(a.Op, "write"):
			want = "EROFS"
		case a.Path == "/parent" && (strings.HasSuffix(a.Op, " bind") || a.Op == "bind" || strings.HasSuffix(a.Op, "clone and mount_setattr")):
			want = "EINVAL" // what is below its submount may not be uncovered
		}
		if a.Error != want && (want != "EINVAL" || mounts || a.Error != "EPERM") {
			t.Errorf("%s: take %s by %s: error %q, want %q", a.Path, a.Flag, a.Op, a.Error, want)
		}
	}
}

// lockTree makes sources of all kinds.
func lockTree(t *testing.T) string {
	t.Helper()
	tree := shortDir(t)
	for _, dir := range []string{"dir", "parent/sub", "tmpfs", "restricted"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(tree+"/file", []byte("x\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	mountTmpfs(t, tree+"/parent/sub", 0)
	mountTmpfs(t, tree+"/tmpfs", 0)
	mountTmpfs(t, tree+"/restricted", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC)
	serve(t, tree+"/socket", "")
	return tree
}

// shortDir is a temporary directory whose path leaves room for a socket's name
// (108 bytes, unix(7)).
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "v")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mountTmpfs(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	mountOn(t, dir, "tmpfs", flags)
}

// mountOn mounts a tmpfs or a ramfs for one test.
func mountOn(t *testing.T, dir, fsType string, flags uintptr) {
	t.Helper()
	if err := unix.Mount("source", dir, fsType, flags, "mode=755"); err != nil {
		t.Fatalf("mount %s on %q: %v", fsType, dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %q: %v", dir, err)
		}
	})
}

// serve writes a text to whoever connects to a socket.
func serve(t *testing.T, path, text string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			// A client that has gone needs no text.
			_, _ = connection.Write([]byte(text))
			connection.Close()
		}
	}()
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
}

// TestVolumeOwners proves that ids in volumes are the same on disk and in the
// container, for every kind of source.
func TestVolumeOwners(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.MappedTmpfs)
			m := demoMachine(t, runtime)
			tree := ownerTree(t)
			serve(t, tree+"/socket", "served")
			options := slices.Concat(withInside(t),
				volume(tree+"/root", "/root-owned", "rbind:rw"),
				volume(tree+"/user", "/user-owned", "rbind:rw"),
				volume(tree+"/tmpfs", "/tmpfs", "rbind:rw"),
				volume(tree+"/file", "/file", "rbind:rw"),
				volume(tree+"/socket", "/socket", "rbind:rw"),
				volume(tree+"/parent", "/tree", "rbind:rw"),
				volume(tree+"/parent", "/top", "bind:rw"))
			const script = `
				for f in /root-owned /user-owned /tmpfs /tmpfs/file /file /socket /tree/sub /tree/sub/file /top/sub; do stat -c "%n %u:%g" $f; done
				ls /top/sub
				/inside connect /socket
				echo more >> /file
				touch /root-owned/new; chown 33:33 /root-owned/new
				setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'touch /user-owned/new && cat /user-owned/private'
				setpriv --reuid 1001 --clear-groups cat /user-owned/private 2>&1
				touch /tmpfs/new /tree/sub/new; setcap cap_net_raw=ep /root-owned/new && setfacl -m u:1000:r /tree/sub/new
			`
			got := m.run(t, options, "sh", "-ec", strings.ReplaceAll(script, "2>&1\n", "2>&1 || true\n")).Must(t)
			want := `/root-owned 0:0
/user-owned 1000:1000
/tmpfs 1000:1000
/tmpfs/file 0:0
/file 1000:1000
/socket 0:0
/tree/sub 0:0
/tree/sub/file 1000:1000
/top/sub 0:0
"served"
private
cat: /user-owned/private: Permission denied`
			if got != want {
				t.Errorf("container printed\n%s\nwant\n%s", got, want)
			}
			for path, want := range map[string]string{
				"root/new": "33:33", "user/new": "1000:1000", "tmpfs/new": "0:0", "parent/sub/new": "0:0", "file": "1000:1000",
			} {
				if got := ownerOf(t, filepath.Join(tree, path)); got != want {
					t.Errorf("%s belongs to %s on the host, want %s", path, got, want)
				}
			}
			if got := text(tree + "/file"); got != "x\nmore\n" {
				t.Errorf("file holds %q", got)
			}
			checkCapability(t, tree+"/root/new")
			checkACL(t, tree+"/parent/sub/new", 1000)
			if w := m.warnings(t); len(w) > 0 {
				t.Errorf("warnings: %q", w)
			}
		})
	}
}

func ownerTree(t *testing.T) string {
	t.Helper()
	tree := shortDir(t)
	for _, dir := range []string{"root", "user", "tmpfs", "parent/sub"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mountTmpfs(t, tree+"/tmpfs", unix.MS_NOSUID|unix.MS_NODEV)
	mountTmpfs(t, tree+"/parent/sub", 0)
	for _, f := range []struct {
		path string
		id   int
		mode os.FileMode
	}{
		{"file", 1000, 0o644}, {"user/private", 1000, 0o600}, {"tmpfs/file", 0, 0o644}, {"parent/sub/file", 1000, 0o644},
	} {
		content := "x\n"
		if f.mode == 0o600 {
			content = "private\n"
		}
		path := filepath.Join(tree, f.path)
		if err := os.WriteFile(path, []byte(content), f.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, f.id, f.id); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"user", "tmpfs"} {
		if err := os.Chown(filepath.Join(tree, dir), 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// TestVolumePropagation proves that mounts made in a container never show on the
// host, and that those of the host show in a container that asked for them.
func TestVolumePropagation(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			source := t.TempDir()
			for _, dir := range []string{"inner", "later"} {
				if err := os.Mkdir(filepath.Join(source, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			options := slices.Concat(
				volume(source, "/private", "rbind:rw"), volume(source, "/slave", "rbind:rw:rslave"), volume(source, "/shared", "rbind:rw:rshared"))
			m.start(t, "a", options, "sleep", "1000")
			mountTmpfs(t, source+"/later", 0)
			const script = `for d in private slave shared; do mount -t tmpfs mine /$d/inner && stat -f -c "$d %T" /$d/inner; done
				for d in private slave shared; do mountpoint -q /$d/later && echo host in $d; done; true`
			got := m.exec(t, "a", nil, "sh", "-c", script).Must(t)
			if want := "private tmpfs\nslave tmpfs\nshared tmpfs\nhost in slave\nhost in shared"; got != want {
				t.Errorf("container printed %q, want %q", got, want)
			}
			mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(source + "/inner"))
			if err != nil {
				t.Fatal(err)
			}
			if len(mounts) > 0 {
				t.Errorf("a mount of the container shows on the host: %v", *mounts[0])
			}
		})
	}
}

// TestVolumeMissing proves that a source that is not there is a clear error.
func TestVolumeMissing(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			m.run(t, nil, "true").Must(t)
			r := m.run(t, volume("/run/not-there", "/volume", "rbind:ro"), "true")
			for _, want := range []string{"volume /volume", `"/run/not-there"`, "no such file or directory"} {
				if r.Code == 0 || !strings.Contains(r.Stderr, want) {
					t.Errorf("status %d, stderr %q, want %q in it", r.Code, r.Stderr, want)
				}
			}
		})
	}
}

// TestVolumeFUSE proves that a source that cannot be idmapped is bound as it is,
// with a warning, or refused if the administrator says so.
func TestVolumeFUSE(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE)
			m := demoMachine(t, runtime)
			fuse := rig.LxcfsFor(t, peer.Lxcfs5, "/run/fuse-source")
			t.Cleanup(func() { os.Remove(fuse.Dir) })
			options := volume(fuse.Dir+"/proc", "/fuse", "rbind:ro")
			got := m.run(t, options, "sh", "-c", "stat -c %u:%g /fuse/uptime; wc -w < /fuse/uptime").Must(t)
			if got != "65534:65534\n2" {
				t.Errorf("container printed %q", got)
			}
			if w := m.warnings(t); len(w) != 1 || !strings.Contains(w[0], "volume /fuse") || !strings.Contains(w[0], "fuse") {
				t.Errorf("warnings are %q, want one that names the volume and its file system", w)
			}
			configure(t, runtime, "[volumes]\nrequire_idmap = true")
			r := m.run(t, options, "true")
			if r.Code == 0 || !strings.Contains(r.Stderr, "volume /fuse") || !strings.Contains(r.Stderr, "volumes.require_idmap is set") {
				t.Errorf("with require_idmap: status %d, stderr %q", r.Code, r.Stderr)
			}
		})
	}
}

// ownerOf is a file's owner on the host.
func ownerOf(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Errorf("stat %q: %v", path, err)
	}
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}
