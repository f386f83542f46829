// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
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

// copied lists a directory with all that a copy should keep.
const copied = `cd /to && find . -printf '%p %U:%G %m %n %l\n' | sort && getcap -r . && cat in/sub/file`

// copyFiles copies out of and into containers, running ones too: dockerd enters these as
// the host's root, whose ids have no place in a container's own.
func copyFiles(t *testing.T, d *daemon) {
	dir := t.TempDir()
	client := strings.Join(d.Client(), " ")
	shell := func(script string) {
		t.Helper()
		rig.Exec(t.Context(), "sh", "-ec", strings.ReplaceAll(script, "docker ", client+" ")).Must(t)
	}
	shell("cd " + dir + ` && mkdir -p in/sub in/empty && echo inwards >in/sub/file && chown 1000:33 in/sub/file && ln in/sub/file in/link &&
		cp /bin/true in/setuid && chown 33:1000 in/setuid && chmod 6755 in/setuid && cp /bin/true in/capable && setcap cap_net_raw+ep in/capable &&
		ln -s file in/sub/symlink && chown -h 7 in/sub/symlink && mkfifo in/fifo && chmod 2775 in/empty && echo >own && chmod 4711 own`)
	c, plain := d.start(t, nil), d.start(t, []string{"--runtime", "runc"})
	d.in(t, c, change)
	for _, name := range []string{c, plain} {
		d.in(t, name, "mkdir /to && echo >/to/before && chown 7 /to/before")
	}

	// Out of it, as the caller's.
	d.docker(t, "cp", c+":/made/file", dir+"/out")
	wantFile(t, dir+"/out", "text\n", 0, 0)
	shell("docker cp " + c + ":/usr/bin/id " + dir + "/id && chmod 6755 " + dir + "/id")
	shell("mkdir " + dir + "/tar && docker exec " + c + " tar -c -C / made | tar -x -C " + dir + "/tar")
	wantFile(t, dir+"/tar/made/file", "text\n", 1000, 33)

	// Into it: what is there is the same as with runc, and soon.
	for _, flag := range []string{"", "--archive "} {
		for _, name := range []string{c, plain} {
			shell("docker cp " + flag + dir + "/in " + name + ":/to && docker cp " + flag + dir + "/own " + name + ":/to/own && docker cp " + flag + dir + "/own " + name + ":/to/before")
		}
		want := d.in(t, plain, copied)
		rig.Eventually(t, "owners of what was copied with "+flag, func() bool { return d.in(t, c, copied) == want })
	}
	want := d.in(t, plain, copied)
	d.expect(t, wantChanged, c, changed)
	// The container can have none of the ids that this takes.
	d.expect(t, "no no", c, "a=$(chown 4294836224 /to/own 2>/dev/null || echo no); echo $a $(chown :4294836224 /to/own 2>/dev/null || echo no)")
	if d.unsettled(t) {
		t.Error("ids of the host stay on disk while the container runs")
	}

	img := "docker.io/local/copied:" + c
	d.docker(t, "commit", c, img)
	defer func() { d.docker(t, "rmi", "--force", img) }()
	if got := d.docker(t, "run", "--rm", "--pull=never", "--runtime", "runc", img, "sh", "-c", copied); got != want {
		t.Errorf("image of a container that something was copied into:\n%s\nwant\n%s", got, want)
	}

	// It lasts, also if nobody was there to see to it.
	shim := d.shimOf(t, c)
	if err := unix.Kill(shim, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	shell("docker cp " + dir + "/in " + c + ":/made/later && docker cp " + dir + "/in/setuid " + c + ":/to/last && docker cp " + dir + "/id " + c + ":/to/id")
	// A program of the host's root is nobody's: it makes nobody root.
	if got := rig.Exec(t.Context(), "nsenter", "-t", d.pid(t, c), "-U", "-m", "-S", "33", "-G", "33", "/to/id", "-u").Must(t); strings.TrimSpace(got) != "33" {
		t.Errorf("a program of the host's root has made the container's user 33 user %s", got)
	}
	if !d.unsettled(t) {
		t.Error("a shim that is stopped has settled something")
	}
	if err := unix.Kill(shim, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "dockerd sees that the container has ended", func() bool { return d.inspect(t, c, "{{.State.Running}}") == "false" })
	rig.Eventually(t, "start after the shim was killed", func() bool { return d.Run(t.Context(), "start", c).Code == 0 })
	d.expect(t, "33:1000 6755\n0:0 6755", c, "stat -c '%u:%g %a' /to/last /to/id && rm /to/last /to/id")
	d.expect(t, want, c, "cd / && rm -rf /to/in && mv /made/later /to/in && "+copied)
	d.docker(t, "stop", "-t", "0", c)
	if layers := d.marked(t); d.unsettled(t) || len(layers) > 0 {
		t.Errorf("ids of the host stay on disk after the end, or marks: %q", layers)
	}

	d.refused(t, d.Run(t.Context(), "cp", d.start(t, []string{"--read-only"})+":/etc/passwd", dir+"/passwd"), "read-only file system")

	shell("docker cp " + c + ":/made/file - >" + dir + "/stopped.tar")
	if h := entry(t, dir+"/stopped.tar", "file"); h.Uid != 1000 || h.Gid != 33 {
		t.Errorf("copied with owner %d:%d", h.Uid, h.Gid)
	}
	d.docker(t, "cp", dir+"/in/sub/file", c+":/made/later")
	d.docker(t, "start", c)
	d.expect(t, "inwards 1000:33", c, "echo $(cat /made/later) $(stat -c %u:%g /made/later)")
	d.expect(t, wantChanged, c, changed)
}

// unsettled tells whether files in the layers of dockerd's containers have ids that are
// nobody's in the end.
func (d *daemon) unsettled(t *testing.T) bool {
	t.Helper()
	found := rig.Exec(t.Context(), "find", d.Root, "-uid", "+4294836223", "-o", "-gid", "+4294836223").Must(t)
	return found != ""
}

// marked lists the layers with a mark of ours.
func (d *daemon) marked(t *testing.T) (layers []string) {
	t.Helper()
	err := filepath.WalkDir(d.Root, func(path string, e fs.DirEntry, err error) error {
		if _, absent := unix.Lgetxattr(path, "trusted.overlay.isolate.unsettled", nil); absent == nil {
			layers = append(layers, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return layers
}

// export of a running container names owners by the host's ids, which is all that dockerd
// sees. (dockerd 26 forgets a mount at every export, with any runtime.)
func export(t *testing.T, d *daemon) {
	c := d.start(t, nil)
	d.in(t, c, change)
	archive := t.TempDir() + "/archive"
	d.docker(t, "export", "--output", archive, c)
	if h := entry(t, archive, "made/file"); h.Uid%65536 != 1000 || h.Gid%65536 != 33 || h.Uid < 65536 {
		t.Errorf("exported with owner %d:%d; tell the documentation", h.Uid, h.Gid)
	}
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
