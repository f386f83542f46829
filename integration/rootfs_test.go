// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"archive/tar"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// makeFiles makes in a container's rootfs what has ids on disk: new files, files
// copied up from a layer, directories, links, capabilities, ACLs, whiteouts.
const makeFiles = `
	mkdir -p /made/dir && touch /made/root && touch /made/user && chown 1000:1000 /made/user && touch /made/last && chown 65535:65535 /made/last
	ln -s nowhere /made/link && chown -h 33:33 /made/link && ln /made/user /made/hard && mkfifo /made/fifo
	cp /usr/bin/id /made/suid && chown 1000 /made/suid && chmod 4755 /made/suid
	cp /usr/bin/id /made/capable && setcap cap_net_raw=ep /made/capable
	touch /made/acl && setfacl -m u:1000:rw /made/acl && setfacl -d -m g:33:rx /made/dir
	chmod 700 /usr/local/bin/capable
	setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'echo more >> /home/user/file'
	chown 1000:33 /srv/shared && rm /srv/data/hardlink
`

// madeOwners are the owners that these must have on disk.
var madeOwners = map[string]string{
	"made": "0:0", "made/dir": "0:0", "made/root": "0:0", "made/user": "1000:1000", "made/last": "65535:65535",
	"made/link": "33:33", "made/hard": "1000:1000", "made/fifo": "0:0", "made/suid": "1000:0", "made/capable": "0:0",
	"usr/local/bin/capable": "0:0", "home/user/file": "1000:1000", "home/user": "1000:1000", "srv/shared": "1000:33",
	"srv/data/hardlink": "0:0", // a whiteout
}

// seeFiles prints what a container sees of them.
const seeFiles = `
	stat -c '%n %a %u:%g' /made/user /made/last /made/link /made/suid /made/dir /home/user/file /srv/shared
	getcap /made/capable; getfacl -cnp /made/acl | grep user:1000; getfacl -cnp /made/dir | grep group:33
	ls /srv/data; echo again > /made/root && rm /made/hard && ln /made/user /made/hard && echo written
`

const seenFiles = `/made/user 644 1000:1000
/made/last 644 65535:65535
/made/link 777 33:33
/made/suid 4755 1000:0
/made/dir 755 0:0
/home/user/file 600 1000:1000
/srv/shared 2775 1000:33
/made/capable cap_net_raw=ep
user:1000:rw-
default:group:33:r-x
readme
written`

// rootfsMethods are the two ways to build an overlay, each of which must do where
// the kernel can.
var rootfsMethods = map[string]rig.Requirement{"detached": rig.DetachedLayers, "private": rig.MappedLayers}

// TestRootfsOwners proves that what a container writes has the container's own
// ids on disk, and that the same snapshot is right with another range.
func TestRootfsOwners(t *testing.T) {
	for _, runtime := range ociRuntimes {
		for method, feature := range rootfsMethods {
			t.Run(string(runtime)+"/"+method, func(t *testing.T) {
				rig.Require(t, rig.Root, feature)
				m := demoMachine(t, runtime, fmt.Sprintf("[rootfs]\nmethod = %q", method))
				m.start(t, "a", withInside(t), "sleep", "1000")
				first := answer[reported](t, m.exec(t, "a", nil, "/inside", "report")).UIDMap
				m.exec(t, "a", nil, "sh", "-ec", makeFiles).Must(t)
				checkMade(t, m.upper(t, "a"))
				checkMethod(t, m, method)

				m.Ctr(t.Context(), "tasks", "rm", "--force", "a")
				m.Ctr(t.Context(), "tasks", "start", "--detach", "--null-io", "a").Must(t)
				if second := answer[reported](t, m.exec(t, "a", nil, "/inside", "report")).UIDMap; second == first {
					t.Errorf("restarted with the same range %q", first)
				}
				if got := m.exec(t, "a", nil, "sh", "-ec", seeFiles).Must(t); got != seenFiles {
					t.Errorf("after a restart the container sees\n%s\nwant\n%s", got, seenFiles)
				}
				checkMade(t, m.upper(t, "a"))
			})
		}
	}
}

// checkMethod proves by what an overlay says of its layers how it was built: those
// on detached mounts have paths that begin at these.
func checkMethod(t *testing.T, m machine, method string) {
	t.Helper()
	rootfs := m.State + "/io.containerd.runtime.v2.task/default/a/rootfs"
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(rootfs))
	if err != nil || len(mounts) != 1 {
		t.Fatalf("rootfs has mounts %v, %v", mounts, err)
	}
	if detached := strings.Contains(mounts[0].VFSOptions, ",upperdir=/fs,"); detached != (method == "detached") {
		t.Errorf("with method %q the overlay has options %q", method, mounts[0].VFSOptions)
	}
}

// checkMade checks the files of makeFiles on disk.
func checkMade(t *testing.T, upper string) {
	t.Helper()
	for path, want := range madeOwners {
		if got := ownerOf(t, filepath.Join(upper, path)); got != want {
			t.Errorf("%s belongs to %s on disk, want %s", path, got, want)
		}
	}
	checkCapability(t, filepath.Join(upper, "made/capable"))
	// chmod copies it up, with its capability.
	checkCapability(t, filepath.Join(upper, "usr/local/bin/capable"))
	checkACL(t, filepath.Join(upper, "made/acl"), 1000)
	if info, err := os.Stat(filepath.Join(upper, "made/suid")); err != nil || info.Mode()&os.ModeSetuid == 0 {
		t.Errorf("setuid program: %v, %v", info, err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(upper, "srv/data/hardlink"), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("whiteout has mode %o and device %d, %v", st.Mode, st.Rdev, err)
	}
}

// upper is the upper layer of a container's rootfs.
func (m machine) upper(t *testing.T, id string) string {
	t.Helper()
	out := m.Ctr(t.Context(), "snapshots", "mounts", "/mnt", id).Must(t)
	_, rest, ok := strings.Cut(out, "upperdir=")
	if !ok {
		t.Fatalf("no upper layer in %q", out)
	}
	upper, _, _ := strings.Cut(rest, ",")
	return strings.Fields(upper)[0]
}

// TestRootfsCommit proves that a layer made of a container's snapshot, while it
// runs and after it was committed, can be anybody's: owners and capabilities
// know nothing of the container's range.
func TestRootfsCommit(t *testing.T) {
	rig.Require(t, rig.Root)
	m := demoMachine(t, peer.Runc15)
	m.start(t, "a", nil, "sleep", "1000")
	m.exec(t, "a", nil, "sh", "-ec", makeFiles).Must(t)
	checkLayer(t, m.Ctr(t.Context(), "snapshots", "diff", "a").Must(t))
	m.Ctr(t.Context(), "tasks", "rm", "--force", "a")
	m.Ctr(t.Context(), "snapshots", "commit", "committed", "a").Must(t)
	t.Cleanup(func() { m.Ctr(t.Context(), "snapshots", "rm", "committed") })
	checkLayer(t, m.Ctr(t.Context(), "snapshots", "diff", "committed").Must(t))
}

func checkLayer(t *testing.T, layer string) {
	t.Helper()
	var reader io.Reader = strings.NewReader(layer)
	if strings.HasPrefix(layer, "\x1f\x8b") {
		unzipped, err := gzip.NewReader(reader)
		if err != nil {
			t.Fatal(err)
		}
		reader = unzipped
	}
	found := map[string]*tar.Header{}
	for archive := tar.NewReader(reader); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found[strings.Trim(header.Name, "/")] = header
	}
	for path, want := range madeOwners {
		if path == "srv/data/hardlink" {
			path = "srv/data/.wh.hardlink"
		}
		header := found[path]
		if header == nil {
			t.Errorf("layer has no %q", path)
			continue
		}
		if got := fmt.Sprintf("%d:%d", header.Uid, header.Gid); got != want {
			t.Errorf("%s belongs to %s in the layer, want %s", path, got, want)
		}
	}
	for _, path := range []string{"made/capable", "usr/local/bin/capable"} {
		if header := found[path]; header != nil {
			checkRevision(t, path, []byte(header.PAXRecords["SCHILY.xattr.security.capability"]))
		}
	}
}

// TestRootfsLayers proves that 60 layers are no problem, whichever way they are
// put together.
func TestRootfsLayers(t *testing.T) {
	for method, feature := range rootfsMethods {
		t.Run(method, func(t *testing.T) {
			rig.Require(t, rig.Root, feature)
			m := machineFor(t, peer.Runc15, "overlayfs", image.Demo60, fmt.Sprintf("[rootfs]\nmethod = %q", method))
			got := m.run(t, nil, "sh", "-c", "cat /srv/layers/58; ls /srv/layers | wc -l; stat -c %u:%g /srv/layers/1 /home/user; echo x > /srv/layers/1 && cat /srv/layers/1").Must(t)
			if want := "/srv/layers/5858\n0:0\n1000:1000\nx"; got != want {
				t.Errorf("container printed %q, want %q", got, want)
			}
		})
	}
}

// TestRootfsNative proves that a rootfs which is a directory, not an overlay,
// has the container's own ids on disk too.
func TestRootfsNative(t *testing.T) {
	// Each container is a copy of the image; TestRootfsDirectory has all runtimes.
	for _, runtime := range []peer.Name{peer.Runc15, peer.Crun121} {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := machineFor(t, runtime, "native", image.Demo)
			m.start(t, "a", []string{"--snapshotter", "native"}, "sleep", "1000")
			m.exec(t, "a", nil, "sh", "-ec", makeFiles).Must(t)
			if got := m.exec(t, "a", nil, "sh", "-ec", seeFiles).Must(t); got != seenFiles {
				t.Errorf("the container sees\n%s\nwant\n%s", got, seenFiles)
			}
			f := strings.Fields(m.Ctr(t.Context(), "snapshots", "--snapshotter", "native", "mounts", "/mnt", "a").Must(t))
			dir := f[slices.Index(f, "bind")+1]
			for path, want := range madeOwners {
				if path == "srv/data/hardlink" {
					continue // removed: there is no layer below
				}
				if got := ownerOf(t, filepath.Join(dir, path)); got != want {
					t.Errorf("%s belongs to %s on disk, want %s", path, got, want)
				}
			}
			checkCapability(t, filepath.Join(dir, "made/capable"))
		})
	}
}

// TestRootfsReadOnly proves that a read-only rootfs is one, and stays one for a
// root that may mount.
func TestRootfsReadOnly(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			const script = `touch /x 2>&1; stat -c %u:%g /home/user; touch /dev/shm/x && echo tmpfs
				mount -o remount,bind,rw /; mount -o remount,rw / 2>/dev/null || echo refused
				mkdir /dev/shm/root; mount --bind / /dev/shm/root; mount -o remount,bind,rw /dev/shm/root
				touch /x 2>&1; touch /dev/shm/root/x 2>&1; true`
			got := m.run(t, []string{"--read-only"}, "sh", "-c", script).Must(t)
			want := `touch: cannot touch '/x': Read-only file system
1000:1000
tmpfs
refused
touch: cannot touch '/x': Read-only file system
touch: cannot touch '/dev/shm/root/x': Read-only file system`
			if got != want {
				t.Errorf("container printed %q, want %q", got, want)
			}
		})
	}
}

// TestRootfsDirectory proves that a rootfs which the client names by its path is
// mapped as well. TestRootfsPremounted has those that are mounted overlays.
func TestRootfsDirectory(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			dir := tinyRootfs(t, 0)
			argv := func(dir string) []string {
				return []string{"--rm", "--rootfs", "--runtime", shimName, dir, "a", "/inside", "report", "/inside", "/data"}
			}
			r := answer[reported](t, m.Output(t, "run", argv(dir)...))
			if r.Files["/inside"] != "100755 0:0" || r.Files["/data"] != "40755 1000:1000" || !strings.HasSuffix(r.UIDMap, " 65536") {
				t.Errorf("container sees %v, ids %q", r.Files, r.UIDMap)
			}
		})
	}
}

// overlayRootfs is a mounted overlay, a directory on which cannot be idmapped.
func overlayRootfs(t *testing.T) string {
	t.Helper()
	dir := shortDir(t)
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
	if err := unix.Mount("overlay", dir+"/merged", "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir+"/merged", 0); err != nil {
			t.Error(err)
		}
	})
	return dir + "/merged"
}

// tinyRootfs is a rootfs with nothing but the program that tests run, its files
// shifted to a range of ids.
func tinyRootfs(t *testing.T, shift int) string {
	t.Helper()
	root := shortDir(t)
	fillTiny(t, root, shift)
	return root
}

func fillTiny(t *testing.T, root string, shift int) {
	t.Helper()
	program, err := os.ReadFile(insideProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := testprogram.Write(filepath.Join(root, "inside"), string(program)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"proc", "sys", "dev", "run", "tmp", "etc", "data"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err = filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, shift, shift)
	})
	if err := errors.Join(err, os.Chown(filepath.Join(root, "data"), shift+1000, shift+1000)); err != nil {
		t.Fatal(err)
	}
}

// Revisions of file capabilities (vfs_cap_data, linux/capability.h): those of
// revision 3 name the host id of a user namespace's root.
const (
	capRevision2 = 0x02000000
	capRevisions = 0xff000000
)

// checkCapability wants a file to have capabilities on disk that know nothing of
// an id range.
func checkCapability(t *testing.T, path string) {
	t.Helper()
	checkRevision(t, path, xattr(t, path, "security.capability"))
}

func checkRevision(t *testing.T, path string, value []byte) {
	t.Helper()
	if len(value) < 4 || binary.LittleEndian.Uint32(value)&capRevisions != capRevision2 {
		t.Errorf("capability of %q is % x, want revision 2", path, value)
	}
}

// checkACL wants a file's ACL on disk to name a user.
func checkACL(t *testing.T, path string, uid uint32) {
	t.Helper()
	value := xattr(t, path, "system.posix_acl_access")
	// struct posix_acl_xattr_header and _entry, linux/posix_acl_xattr.h.
	var users []uint32
	for i := 4; i+8 <= len(value); i += 8 {
		if binary.LittleEndian.Uint16(value[i:]) == 2 { // ACL_USER
			users = append(users, binary.LittleEndian.Uint32(value[i+4:]))
		}
	}
	if !slices.Equal(users, []uint32{uid}) {
		t.Errorf("ACL of %q names users %d, want %d", path, users, uid)
	}
}

func xattr(t *testing.T, path, name string) []byte {
	t.Helper()
	value := make([]byte, 1024)
	n, err := unix.Lgetxattr(path, name, value)
	if err != nil {
		t.Errorf("%s of %q: %v", name, path, err)
		return nil
	}
	return value[:n]
}
