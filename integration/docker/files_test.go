// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/rig"
)

// change is a script that leaves files behind of all the kinds that could suffer.
const change = `mkdir /made && echo text >/made/file && chown 1000:33 /made/file && chmod 640 /made/file &&
	cp /usr/bin/id /made/setuid && chmod 4755 /made/setuid && cp /usr/bin/sleep /made/capable && setcap cap_net_raw+ep /made/capable &&
	ln -s file /made/link && chown -h 1000:1000 /made/link && setfacl -m u:1000:r /made/file && rm /etc/debian_version && chown 33 /srv/data`

// changed prints what change has done.
const changed = `stat -c '%n %u:%g %a' /made/file /made/setuid /made/link /srv/data; getcap /made/capable; getfacl -n /made/file 2>/dev/null | grep :1000:; test -e /etc/debian_version || echo gone`

const wantChanged = `/made/file 1000:33 640
/made/setuid 0:0 4755
/made/link 1000:1000 777
/srv/data 33:0 755
/made/capable cap_net_raw=ep
user:1000:r--
gone`

// commit makes an image of a running container. Whoever runs that image, with the
// same runtime or another, finds it as it was.
func commit(t *testing.T, d *daemon) {
	c := d.start(t, nil)
	d.in(t, c, change)
	d.expect(t, wantChanged, c, changed)
	img := "docker.io/local/committed:" + c
	d.docker(t, "commit", c, img)
	defer func() { d.docker(t, "rmi", "--force", img) }()
	d.expect(t, wantChanged, c, changed)
	// Images of Docker carry no access control lists.
	want := strings.Replace(wantChanged, "user:1000:r--\n", "", 1)
	for _, flags := range [][]string{d.flags, {"--runtime", "runc"}} {
		args := append(append([]string{"run", "--rm", "--pull=never"}, flags...), img, "sh", "-c", changed)
		if got := d.docker(t, args...); got != want {
			t.Errorf("image of a running container, with %q:\n%s\nwant\n%s", flags, got, want)
		}
	}
}

// diff compares with the image by owners too, and dockerd sees the host's ids
// while the container runs.
func diff(t *testing.T, d *daemon) {
	c := d.start(t, nil)
	d.in(t, c, "echo 1 >/added && rm /etc/debian_version && touch /srv/data/readme")
	want := []string{"A /added", "C /etc", "C /srv", "C /srv/data", "C /srv/data/readme", "D /etc/debian_version"}
	running := d.changes(t, c)
	for _, line := range []string{"A /added", "D /etc/debian_version"} {
		if !slices.Contains(running, line) {
			t.Errorf("diff of a running container lacks %q", line)
		}
	}
	if !slices.Contains(running, "C /usr/bin") {
		t.Error("diff of a running container no longer says that everything has changed: tell the documentation")
	}
	d.docker(t, "stop", "-t", "0", c)
	if got := d.changes(t, c); !slices.Equal(got, want) {
		t.Errorf("diff is %q, want %q", got, want)
	}
}

// changes is what docker diff says, sorted.
func (d *daemon) changes(t *testing.T, name string) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(d.docker(t, "diff", name)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	slices.Sort(lines)
	return lines
}

// copyFiles copies out of and into containers. While one runs on an overlay,
// dockerd cannot make a directory in it, as it does before it copies: its own ids
// have no counterpart there. tar in the container does the same.
func copyFiles(t *testing.T, d *daemon) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/in", []byte("inwards"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := d.start(t, nil)
	d.in(t, c, change)
	client := strings.Join(d.Client(), " ")
	shell := func(script string) {
		t.Helper()
		rig.Exec(t.Context(), "sh", "-ec", strings.ReplaceAll(script, "docker ", client+" ")).Must(t)
	}
	shell("mkdir " + dir + "/tar && docker exec " + c + " tar -c -C / made | tar -x -C " + dir + "/tar")
	wantFile(t, dir+"/tar/made/file", "text\n", 1000, 33)
	shell("tar -c -C " + dir + " in | docker exec -i " + c + " tar -x -C /made")
	d.expect(t, "inwards 0:0", c, "echo $(cat /made/in) $(stat -c %u:%g /made/in)")
	d.in(t, c, "rm /made/in")

	out, in := d.Run(t.Context(), "cp", c+":/made/file", dir+"/out"), d.Run(t.Context(), "cp", dir+"/in", c+":/made/in")
	d.refused(t, out, "value too large")
	d.refused(t, in, "value too large")

	d.docker(t, "stop", "-t", "0", c)
	shell("docker cp " + c + ":/made/file - >" + dir + "/stopped.tar")
	if h := entry(t, dir+"/stopped.tar", "file"); h.Uid != 1000 || h.Gid != 33 {
		t.Errorf("copied with owner %d:%d", h.Uid, h.Gid)
	}
	d.docker(t, "cp", dir+"/in", c+":/made/later")
	d.docker(t, "start", c)
	d.expect(t, "inwards 0:0", c, "echo $(cat /made/later) $(stat -c %u:%g /made/later)")
	d.expect(t, wantChanged, c, changed)
}

// export of a running container needs the same directory as cp. (dockerd 26 forgets
// a mount at every export, with any runtime.)
func export(t *testing.T, d *daemon) {
	c := d.start(t, nil)
	d.in(t, c, change)
	archive := t.TempDir() + "/archive"
	d.refused(t, d.Run(t.Context(), "export", "--output", archive, c), "value too large")
	d.docker(t, "stop", "-t", "0", c)
	d.docker(t, "export", "--output", archive, c)
	if h := entry(t, archive, "made/file"); h.Uid != 1000 || h.Gid != 33 {
		t.Errorf("exported with owner %d:%d", h.Uid, h.Gid)
	}
}

func wantFile(t *testing.T, path, content string, uid, gid uint32) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Error(err)
	}
	if string(got) != content || st.Uid != uid || st.Gid != gid {
		t.Errorf("%s has %q and owner %d:%d, want %q and %d:%d", path, got, st.Uid, st.Gid, content, uid, gid)
	}
}

// entry returns the header of a file in an archive.
func entry(t *testing.T, archive, name string) *tar.Header {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			t.Fatalf("%s has no %s", archive, name)
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == name {
			return h
		}
	}
}

func volumes(t *testing.T, d *daemon) {
	host := t.TempDir()
	if err := errors.Join(os.Mkdir(host+"/sub", 0o755), os.WriteFile(host+"/file", []byte("of the host\n"), 0o644), os.Lchown(host+"/file", 1000, 33)); err != nil {
		t.Fatal(err)
	}
	// A new named volume gets what the image has there, with its owners.
	volume := d.docker(t, "volume", "create")
	defer func() { d.Run(context.Background(), "volume", "rm", volume).Must(t) }()
	d.prints(t, "33:1000 2775", []string{"-v", volume + ":/srv/shared"}, "stat -c '%u:%g %a' /srv/shared && echo kept >/srv/shared/file && chown 1000:33 /srv/shared/file")
	wantFile(t, filepath.Join(d.docker(t, "volume", "inspect", "--format", "{{.Mountpoint}}", volume), "file"), "kept\n", 1000, 33)
	d.prints(t, "kept 1000:33", []string{"--mount", "type=volume,source=" + volume + ",target=/v"}, "echo $(cat /v/file) $(stat -c %u:%g /v/file)")
	d.prints(t, "of the host 1000:33", []string{"-v", host + ":/h"}, "echo $(cat /h/file) $(stat -c %u:%g /h/file); echo of the container >/h/new; chown 33:33 /h/new")
	wantFile(t, host+"/new", "of the container\n", 33, 33)
	d.prints(t, "of the host", []string{"--mount", "type=bind,source=" + host + "/file,target=/f,readonly"}, "cat /f")
	// One that dockerd makes because it is not there.
	d.prints(t, "0:0", []string{"-v", host + "/made:/m"}, "stat -c %u:%g /m")
	d.prints(t, "tmpfs 1000 1024k", []string{"--tmpfs", "/t:size=1m,uid=1000"}, "echo $(stat -f -c %T /t) $(stat -c %u /t) $(grep ' /t ' /proc/self/mountinfo | sed -n 's/.*size=\\([0-9k]*\\).*/\\1/p')")
	d.prints(t, "tmpfs", []string{"--mount", "type=tmpfs,target=/t"}, "stat -f -c %T /t")
	first := d.start(t, []string{"-v", "/anonymous"})
	d.in(t, first, "echo shared >/anonymous/file && chown 1000 /anonymous/file")
	d.prints(t, "shared 1000", []string{"--volumes-from", first}, "echo $(cat /anonymous/file) $(stat -c %u /anonymous/file)")
}

// readOnlyVolumes stay read-only, whatever the container's root does.
func readOnlyVolumes(t *testing.T, d *daemon) {
	host := t.TempDir()
	for _, flags := range [][]string{
		{"-v", host + ":/h:ro"},
		{"--mount", "type=bind,source=" + host + ",target=/h,readonly"},
		{"--privileged", "-v", host + ":/h:ro"},
	} {
		d.prints(t, "no no no", flags, "a=$(touch /h/x 2>/dev/null || echo no); b=$(mount -o remount,rw,bind /h 2>/dev/null || echo no); c=$(touch /h/x 2>/dev/null || echo no); echo $a $b $c")
	}
}

// mountsOfReadOnlyVolumes were writable: dockerd asks only runc for more than the top.
func mountsOfReadOnlyVolumes(t *testing.T, d *daemon) {
	host := t.TempDir()
	if err := os.Mkdir(host+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("sub", host+"/sub", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(host+"/sub", 0); err != nil {
			t.Error(err)
		}
	}()
	for _, flags := range [][]string{
		{"-v", host + ":/h:ro"},
		{"--mount", "type=bind,source=" + host + ",target=/h,readonly"},
		{"--privileged", "-v", host + ":/h:ro"},
	} {
		d.prints(t, "no no", flags, "a=$(touch /h/sub/x 2>/dev/null || echo no); b=$(mount -o remount,rw,bind /h/sub 2>/dev/null || echo no); echo $a $b $(ls /h/sub)")
	}
	d.prints(t, "x", []string{"-v", host + ":/h"}, "touch /h/sub/x; ls /h/sub")
	d.prints(t, "", []string{"--mount", "type=bind,source=" + host + ",target=/h,readonly,bind-recursive=disabled"}, "ls /h/sub")
}

// volumeOnDev: the runtime made isolate's own mount points in it, or failed to.
func volumeOnDev(t *testing.T, d *daemon) {
	d.prints(t, "null", []string{"-v", "/dev:/dev"}, "echo >/dev/null && ls -d /dev/null | cut -c6-")
	host := t.TempDir()
	// Without it runc cannot mask what dockerd asks it to.
	if err := unix.Mknod(host+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	d.prints(t, "mine", []string{"-v", host + ":/dev"}, "echo mine >/dev/file; cat /dev/file")
	entries, err := os.ReadDir(host)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("more than the container's own file and its caller's is in the caller's directory: %v", entries)
	}
}

// propagation is wanted by those who mount for containers.
func propagation(t *testing.T, d *daemon) {
	host := t.TempDir()
	// dockerd wants to see that the source is on a shared mount.
	for _, mode := range []string{"rslave", "rshared"} {
		dir := filepath.Join(host, mode)
		if err := os.MkdirAll(dir+"/later", 0o755); err != nil {
			t.Fatal(err)
		}
		c := d.start(t, []string{"--mount", "type=bind,source=" + dir + ",target=/h,bind-propagation=" + mode})
		if err := unix.Mount("later", dir+"/later", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		d.expect(t, "tmpfs", c, "stat -f -c %T /h/later")
		if err := unix.Unmount(dir+"/later", 0); err != nil {
			t.Fatal(err)
		}
		// What the container mounts never reaches the host.
		d.in(t, c, "mkdir /h/own && mount -t tmpfs own /h/own && touch /h/own/file")
		if _, err := os.Stat(dir + "/own/file"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a mount of the container is on the host: %v", mode, err)
		}
	}
}
