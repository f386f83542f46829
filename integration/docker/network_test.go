// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

const page = "served by the client image"

// serve is the command line of a server.
var serve = []string{"busybox", "httpd", "-f", "-h", "/www"}

func ports(t *testing.T, d *daemon) {
	d.start(t, []string{"-p", "127.0.0.1:18080:80", "-p", "10.88.70.1:18081:80"}, serve...)
	for _, address := range []string{"127.0.0.1:18080", "10.88.70.1:18081"} {
		if got := get(t, "http://"+address+"/"); got != page {
			t.Errorf("%s shows %q", address, got)
		}
	}
	d.prints(t, "eth0 lo", nil, "echo $(ls /sys/class/net)")
	d.prints(t, "lo", []string{"--network", "none"}, "echo $(ls /sys/class/net)")
}

// get fetches a page as soon as there is a server.
func get(t *testing.T, address string) string {
	t.Helper()
	var text []byte
	rig.Eventually(t, address, func() bool {
		r, err := http.Get(address)
		if err != nil {
			return false
		}
		defer r.Body.Close()
		text, err = io.ReadAll(r.Body)
		return err == nil
	})
	return strings.TrimSpace(string(text))
}

func userNetworks(t *testing.T, d *daemon) {
	network := "n" + d.name(t)
	d.docker(t, "network", "create", network)
	defer func() { d.Run(context.Background(), "network", "rm", network).Must(t) }()
	server := d.start(t, []string{"--network", network, "--network-alias", "store"}, serve...)
	const fetch = "until busybox wget -qO- http://"
	for _, name := range []string{server, "store"} {
		d.prints(t, page, []string{"--network", network}, fetch+name+"/; do sleep 0.1; done")
	}
	d.prints(t, "10.1.2.3", []string{"--network", network, "--add-host", "there:10.1.2.3"}, "sed -n 's/[[:space:]]there$//p' /etc/hosts")
	// Connected and disconnected while it runs.
	late := d.start(t, nil)
	d.docker(t, "network", "connect", network, late)
	d.expect(t, page, late, fetch+"store/; do sleep 0.1; done")
	d.docker(t, "network", "disconnect", network, late)
	d.expect(t, "eth0 lo", late, "echo $(ls /sys/class/net)")
	d.docker(t, "rm", "--force", server)
}

// joinedNamespaces are those of another container. The user namespace goes with
// them where the container could not do without it: with the process namespace, and
// for who asks to administer the network. Otherwise each has its own, beside the
// other's, so that they cannot enter each other.
func joinedNamespaces(t *testing.T, d *daemon) {
	server := d.start(t, []string{"--ipc", "shareable"}, serve...)
	userns := d.in(t, server, "readlink /proc/self/ns/user")
	d.in(t, server, "echo shared >/dev/shm/file")
	const bridge = "ip link add d0 type bridge 2>/dev/null && ip link del d0 && echo yes || echo no"
	for _, test := range []struct{ flags, want, script string }{
		{"--net", "apart " + page, "busybox wget -qO- http://127.0.0.1/"},
		{"--net", "apart no", bridge},
		{"--cap-add NET_ADMIN --net", "joined yes", bridge},
		{"--ipc", "apart shared 0", "echo $(cat /dev/shm/file) $(stat -c %u /dev/shm/file)"},
		{"--pid", "joined busybox", "cat /proc/1/comm"},
	} {
		d.prints(t, test.want, append(strings.Fields(test.flags), "container:"+server),
			"[ $(readlink /proc/self/ns/user) = "+userns+" ] && printf 'joined ' || printf 'apart '; "+test.script)
	}
	// All at once, and with files of its own.
	d.prints(t, userns+" 0:0 1000", []string{"--net", "container:" + server, "--ipc", "container:" + server, "--pid", "container:" + server},
		"echo $(readlink /proc/self/ns/user) $(stat -c %u:%g /etc/passwd) $(stat -c %u /home/user/file)")
}

// hostNamespaces are the host's: those that cannot be shared with a container
// that has ids of its own are refused with the reason.
func hostNamespaces(t *testing.T, d *daemon) {
	for _, name := range []string{"pid", "ipc"} {
		d.refused(t, d.run(t, []string{"--" + name, "host"}, "true"),
			"container shares the host's "+name+" namespace, which a container with its own user namespace cannot use; drop the host "+name+" setting or run it with another runtime")
	}
	d.prints(t, "65536", []string{"--userns", "host", "--uts", "host", "--cgroupns", "host"}, "awk '{ print $3 }' /proc/self/uid_map")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	d.prints(t, host+" no", []string{"--uts", "host"}, "echo $(hostname) $(hostname other 2>/dev/null || echo no)")
	// The host's network works, but is not the container's to administer.
	d.prints(t, "node0 no", []string{"--net", "host"}, "echo $(ip -o link | grep -o node0) $(ip link add d0 type bridge 2>/dev/null || echo no)")
	if !strings.Contains(d.said("container uses the host's network namespace"), "without network administration") {
		t.Error("no warning about the host's network")
	}
}
