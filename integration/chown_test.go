// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

const (
	chowned = "[rootfs]\nmethod = \"chown\""
	mapped  = "[rootfs]\nmethod = \"auto\""
)

// seeImage prints what an image has in which ids play a part, and what becomes of
// it when it is used: owners, modes, set-id bits, capabilities, hard links.
const seeImage = `
	stat -c '%n %a %u:%g' / /tmp /etc/shadow /home/user /home/user/file /srv/shared /usr/local/bin/suid-id /usr/local/bin/capable
	getcap /usr/local/bin/capable
	[ /srv/data/readme -ef /srv/data/hardlink ] && stat -c 'links %h' /srv/data/readme
	echo "strangers: $(find / -xdev \( -nouser -o -nogroup \) | head -3)"
	user="setpriv --reuid 1000 --regid 1000 --clear-groups"
	$user /usr/local/bin/suid-id -u
	$user /usr/local/bin/capable 30 & sleep 0.3; grep CapEff /proc/$!/status; kill $!
	$user sh -c 'cat /home/user/file; cat /etc/shadow 2>/dev/null || echo denied'
`

const seenImage = `/ 755 0:0
/tmp 1777 0:0
/etc/shadow 640 0:42
/home/user 755 1000:1000
/home/user/file 600 1000:1000
/srv/shared 2775 33:1000
/usr/local/bin/suid-id 4755 0:0
/usr/local/bin/capable 755 0:0
/usr/local/bin/capable cap_net_bind_service,cap_net_raw=ep
links 2
strangers: 
0
CapEff:	0000000000002400
mine
denied`

// changeImage changes the image's files in the ways that overlays have rules for:
// rename, chown, whiteout, opaque directory, hard links, new set-id programs.
const changeImage = `
	mv /home/user /home/renamed && ls -A /home
	mv /home/renamed/file /srv/moved && stat -c '%a %u:%g' /srv/moved
	rm -r /etc/skel && mkdir /etc/skel && ls -A /etc/skel
	[ -e /etc/issue.net ] || echo gone
	ln /srv/data/readme /srv/data/third && stat -c %h /srv/data/third
	chown 1000:33 /usr/local/bin/suid-id && stat -c '%a %u:%g' /usr/local/bin/suid-id
	chmod 6755 /usr/local/bin/suid-id && setpriv --reuid 2 --regid 2 --clear-groups /usr/local/bin/suid-id -u
	mknod /dev/x c 1 3 2>/dev/null || echo 'no device'
	touch /srv/shared/new && stat -c %g /srv/shared/new
`

const changedImage = `renamed
600 1000:1000
gone
2
755 1000:33
1000
no device
33`

// ways are the two ways to have a rootfs, on both kinds of snapshots. What is seen
// inside must not tell them apart.
var ways = []struct {
	name        string
	snapshotter string
	runtime     peer.Name
	config      string
	requires    []rig.Requirement
}{
	{"mapped overlay", "overlayfs", peer.Runc15, mapped, []rig.Requirement{rig.Kernel("5.19")}},
	{"chowned overlay", "overlayfs", peer.Runc15, chowned, nil},
	{"chowned overlay, crun", "overlayfs", peer.Crun121, chowned, nil},
	{"mapped directory", "native", peer.Runc15, mapped, []rig.Requirement{rig.Kernel("5.12")}},
	{"chowned directory", "native", peer.Runc15, chowned, nil},
}

// TestChownConformance proves that a container sees the same of an image whose ids
// are moved on disk as of a mapped one, when it starts and after it was restarted.
func TestChownConformance(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			rig.Require(t, append([]rig.Requirement{rig.Root}, way.requires...)...)
			m := machineFor(t, way.runtime, way.snapshotter, demo(), way.config)
			m.start(t, "a", []string{"--snapshotter", way.snapshotter, "--allow-new-privs"}, "sleep", "1000")
			run := func(what, script, want string) {
				t.Helper()
				if got := m.exec(t, "a", nil, "sh", "-ec", script).Must(t); got != want {
					t.Errorf("%s: the container printed\n%s\nwant\n%s", what, got, want)
				}
			}
			run("image", seeImage, seenImage)
			m.exec(t, "a", nil, "sh", "-ec", makeFiles).Must(t)
			run("files made", seeFiles, seenFiles)
			m.Ctr(t.Context(), "tasks", "rm", "--force", "a")
			m.Ctr(t.Context(), "tasks", "start", "--detach", "--null-io", "a").Must(t)
			run("files after a restart", seeFiles, seenFiles)
			run("changes", changeImage, changedImage)
			for _, w := range m.warnings(t) {
				if strings.Contains(w, "rootfs") {
					t.Errorf("warning %s", w)
				}
			}
		})
	}
}
