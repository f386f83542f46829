// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/rig"
)

// node is a containerd on the host that a test has made.
type node struct {
	*rig.Machine
	reference string
	flags     []string // of ctr run
}

// start starts a containerd with the shim under test, and imports an image.
func start(t *testing.T, config rig.Config, name image.Name) node {
	t.Helper()
	configure(t, "")
	n := node{Machine: rig.MachineFor(t, config)}
	if config.Snapshotter != "" {
		n.flags = []string{"--snapshotter", config.Snapshotter}
	}
	n.reference = n.Image(t, name)
	return n
}

// configure sets the shim's configuration until the test ends. There are two ranges
// of ids, which containers get in turn.
func configure(t *testing.T, toml string) {
	t.Helper()
	rig.Configure(t, "[ids]\npool = [\"1900019712-1900150783\"]\n[lxcfs]\nmode = \"off\"\n"+toml)
}

// run runs a container to its end.
func (n node) run(t *testing.T, flags []string, argv ...string) rig.Result {
	t.Helper()
	return n.Run(t, slices.Concat(n.flags, flags, []string{n.reference, "a"}, argv)...)
}

// makes is what a container is asked to do first, and sees is what it has to see
// of it when it was started anew: the ids on disk are those inside, or they would
// not be the same with the next range.
const (
	makes = `set -e
stat -c 'file %u:%g %a' /home/user/file
stat -c 'setuid %u:%g %a' /usr/local/bin/suid-id
stat -c 'hard link %h' /srv/data/readme
getcap /usr/local/bin/capable
stat -c 'volume %u:%g' /volume/file
setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'echo more >> /home/user/file; touch /volume/new; echo setuid to $(/usr/local/bin/suid-id -u)'
cp /usr/bin/id /new; chown 1000:33 /new; chmod 4750 /new; setcap cap_net_raw=ep /new
mkdir /dir; chown 65535:65535 /dir; ln -s /new /dir/link; mkfifo /dir/fifo
rm /srv/data/hardlink; rm -r /usr/share/doc; mv /srv/shared /srv/moved
mount -t tmpfs none /mnt; echo mounted; umount /mnt
echo done`
	made = `file 1000:1000 600
setuid 0:0 4755
hard link 2
/usr/local/bin/capable cap_net_bind_service,cap_net_raw=ep
volume 1000:1000
setuid to 0
mounted
done`
	sees = `set -e
stat -c '%n %u:%g %a' /new /dir /srv/moved /home/user/file
getcap /new
ls /srv/data /dir; ls -d /usr/share/doc /srv/shared 2>&1 | wc -l
echo done`
	seen = `/new 1000:33 4750
/dir 65535:65535 755
/srv/moved 33:1000 2775
/home/user/file 1000:1000 600
/new cap_net_raw=ep
/dir:
fifo
link

/srv/data:
readme
2
done`
)

// proves leads a container of image.Demo through what an ordinary one does, twice on the same
// snapshot, and demands that nothing is left and nothing was warned of, but what
// is expected.
func (n node) proves(t *testing.T, warnings ...string) {
	t.Helper()
	volume := filepath.Join(filepath.Dir(n.Root), "volume")
	if err := errors.Join(os.Mkdir(volume, 0o777), os.WriteFile(volume+"/file", nil, 0o644), os.Chown(volume+"/file", 1000, 1000), os.Chmod(volume, 0o777)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(volume) })
	for range 2 {
		n.run(t, nil, "true").Must(t) // leaves what is known of the runtime, and a lock for each range
	}
	before := rig.MustSnapshot(t)
	logged := n.Mark(t)
	flags := slices.Concat([]string{"--null-io"}, n.flags, []string{"--allow-new-privs", "--mount", "type=bind,src=" + volume + ",dst=/volume,options=rbind:rw"})
	c := n.StartContainer(t, flags, n.reference, "a", "sleep", "1000")
	ids := n.ids(t)
	if got := n.exec(t, makes); got != made {
		t.Errorf("the container printed\n%s\nwant\n%s", got, made)
	}
	var st unix.Stat_t
	if err := unix.Stat(volume+"/new", &st); err != nil || st.Uid != 1000 || st.Gid != 1000 {
		t.Errorf("the file in the volume belongs to %d:%d, %v", st.Uid, st.Gid, err)
	}
	n.Ctr(t.Context(), "tasks", "rm", "--force", "a")
	n.Ctr(t.Context(), "tasks", "start", "--detach", "--null-io", "a").Must(t)
	if now := n.ids(t); now == ids {
		t.Errorf("started anew, it has the ids %q again", now)
	}
	if got := n.exec(t, sees); got != seen {
		t.Errorf("started anew, the container sees\n%s\nwant\n%s", got, seen)
	}
	c.Remove(t)
	rig.MustMatch(t, before)
	n.warned(t, logged, warnings...)
}

// ids are those that the container has, as its uid_map.
func (n node) ids(t *testing.T) string {
	t.Helper()
	ids := n.exec(t, "cat /proc/self/uid_map")
	if f := strings.Fields(ids); len(f) != 3 || f[0] != "0" || !strings.HasPrefix(f[1], "1900") || f[2] != "65536" {
		t.Errorf("the container's ids are %q", ids)
	}
	return ids
}

// exec runs a script in the container and returns what it prints.
func (n node) exec(t *testing.T, script string) string {
	t.Helper()
	r := n.Container("a").Sh(t, script)
	if r.Err() != nil {
		t.Errorf("%v: %s", r.Err(), r.Stdout)
	}
	return strings.TrimSpace(r.Stdout)
}

// warned compares the shim's warnings with those that are expected, as parts of
// the text.
func (n node) warned(t *testing.T, since int, want ...string) {
	t.Helper()
	got := n.Warnings(t, since)
	for _, part := range want {
		if !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, part) }) {
			t.Errorf("no warning says %q: %q", part, got)
		}
	}
	for _, line := range got {
		if !slices.ContainsFunc(want, func(part string) bool { return strings.Contains(line, part) }) {
			t.Errorf("unexpected warning: %s", line)
		}
	}
}

// refuses demands that no container runs, for a reason that is told in one
// sentence, and that nothing is left of it.
func (n node) refuses(t *testing.T, want ...string) {
	t.Helper()
	// The first attempt leaves what is known of the runtime, and a lock.
	for range 2 {
		n.run(t, nil, "true")
	}
	before := rig.MustSnapshot(t)
	r := n.run(t, nil, "true")
	if r.Code == 0 {
		t.Error("it ran")
	}
	var said []string
	for line := range strings.Lines(r.Stderr) {
		if !strings.Contains(line, "level=warning") { // ctr's own
			said = append(said, strings.TrimSpace(line))
		}
	}
	if len(said) != 1 {
		t.Errorf("it took %d lines to say why: %q", len(said), said)
	}
	for _, part := range want {
		if !strings.Contains(strings.Join(said, ""), part) {
			t.Errorf("%q is not in %q", part, said)
		}
	}
	t.Log(said)
	rig.MustMatch(t, before)
}
