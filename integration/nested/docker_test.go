// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestDocker runs Docker inside a container, by its plain command line.
func TestDocker(t *testing.T) {
	for _, test := range []struct {
		name    image.Name
		runtime peer.Name
	}{
		{image.Docker20, peer.Runc15},
		{image.Docker26, peer.Runc15},
		{image.Docker26, peer.Crun121},
		{image.Docker20, peer.Crun121},
	} {
		t.Run(string(test.name)+"/"+string(test.runtime), func(t *testing.T) {
			n := on(t, test.runtime)
			c := start(t, n, test.name, slices.Concat(inner(t), []string{"--memory-limit", "1073741824", "--cpus", "2"}), "dockerd")
			c.await(t, "docker version")
			c.expect(t, "overlay2", "docker info -f '{{.Driver}}'")
			c.sh(t, "docker load -i /inner.tar && docker tag "+innerReference+" i")
			for _, part := range []struct {
				name string
				test func(*testing.T, *container)
			}{
				{"run", dockerRun},
				{"build", dockerBuild},
				{"network", dockerNetwork},
				{"limits", dockerLimits},
				{"view", dockerView},
				{"privileged", dockerPrivileged},
				{"pause", dockerPause},
				{"restart", dockerRestart},
			} {
				t.Run(part.name, func(t *testing.T) { part.test(t, c) })
			}
		})
	}
}

func dockerRun(t *testing.T, c *container) {
	c.expect(t, "second", "docker run --rm i cat /layer")
	c.expect(t, "gone", "docker run --rm i sh -c 'test -e /usr/share || echo gone'")
	c.expect(t, "1000:1000", "docker run --rm --user 1000:1000 i sh -c 'echo $(id -u):$(id -g)'")
	most := c.sh(t, "ulimit -Hn") // what the host grants, at most 1048576
	c.expect(t, most, "docker run --rm --ulimit nofile="+most+" i sh -c 'ulimit -n'")
	c.expect(t, "read-only", "docker run --rm --read-only i sh -c 'touch /x 2>/dev/null || echo read-only'")
	c.expect(t, "42", "docker run --rm i sh -c 'exit 42'; echo $?")
	c.sh(t, "docker volume create data && docker run --rm -v data:/v i sh -c 'echo kept >/v/file && chown 1000:1000 /v/file'")
	c.expect(t, "kept 1000", "docker run --rm --user 1000 -v data:/v i sh -c 'echo $(cat /v/file) $(stat -c %u /v/file)'")
	// What is bound read-only from the outer rootfs needs its locked flags repeated.
	c.expect(t, "read-only", "docker run --rm -v /etc:/e:ro i sh -c 'test -s /e/passwd && ! touch /e/x 2>/dev/null && echo read-only'")
	c.expect(t, "opened", "docker run --rm --device /dev/fuse i sh -c 'exec 3<>/dev/fuse && echo opened'")
	c.sh(t, "docker run -d --name sleeper --init i sleep 1000")
	c.expect(t, "0", "docker exec sleeper id -u")
	c.expect(t, "copied", "echo copied >/tmp/f && docker cp /tmp/f sleeper:/f && docker exec sleeper cat /f")
	c.expect(t, "A /f", "docker diff sleeper | grep /f$")
	c.expect(t, "copied", "docker commit sleeper again >/dev/null && docker run --rm again cat /f")
	c.sh(t, "docker pause sleeper && docker unpause sleeper && docker top sleeper && docker stats --no-stream sleeper")
	c.sh(t, "docker stop -t 5 sleeper && docker rm sleeper")
}

func dockerBuild(t *testing.T, c *container) {
	c.sh(t, `mkdir -p /tmp/context && cd /tmp/context && echo here >copied && printf '%s\n' \
		'FROM i' 'COPY --chown=1000 copied /copied' 'RUN id -u >/ran && rm /layer && echo builder:x:2000:2000::/:/bin/sh >>/etc/passwd' 'USER builder' \
		'CMD ["sh", "-c", "id -u; cat /ran; stat -c %u /copied; test -e /layer || echo removed"]' >Dockerfile &&
		DOCKER_BUILDKIT=0 docker build -t built .`)
	c.expect(t, "2000\n0\n1000\nremoved", "docker run --rm built")
}

func dockerNetwork(t *testing.T, c *container) {
	const page = "served by the inner image"
	c.sh(t, "docker run -d --name web -p 8080:80 i httpd -f -h /www")
	c.expect(t, page, "docker run --rm i wget -qO- http://$(docker inspect -f '{{.NetworkSettings.IPAddress}}' web)/")
	c.expect(t, page, "busybox wget -qO- http://127.0.0.1:8080/")
	if got := get(t, "http://"+c.address+":8080/"); got != page {
		t.Errorf("published port shows %q, want %q", got, page)
	}
	// What is sent out comes from the address of the outer container.
	c.expect(t, c.address, "docker run --rm i wget -qO- "+peers(t))
	c.expect(t, c.address, "docker run --rm --net=host i wget -qO- "+peers(t))
	c.expect(t, "1", "docker run --rm --net=host i ip -o -4 address show dev eth0 | grep -c "+c.address)
	c.expect(t, "lo", "docker run --rm --net=none i ls /sys/class/net")
	c.sh(t, "docker rm -f web")

	// Two containers that find each other by name, as compose makes them.
	c.sh(t, "docker network create app && docker run -d --network app --name db --network-alias store i httpd -f -h /www")
	c.expect(t, page+"\n"+page, "docker run --rm --network app i sh -c 'wget -qO- http://db/; wget -qO- http://store/'")
	c.expect(t, c.address, "docker run --rm --network app i wget -qO- "+peers(t))
	c.sh(t, "docker rm -f db && docker network rm app")
}

func dockerLimits(t *testing.T, c *container) {
	c.expect(t, "137", "docker run --rm -m 32m --memory-swap 32m i dd if=/dev/zero of=/dev/null bs=100M count=1 >/dev/null 2>&1; echo $?")
	c.expect(t, "0", "docker run --rm -m 256m i dd if=/dev/zero of=/dev/null bs=100M count=1 >/dev/null 2>&1; echo $?")
	throttled := c.sh(t, `docker run --rm --cpus 0.2 i sh -c 'timeout 1 sh -c "while :; do :; done"; cat /sys/fs/cgroup/cpu/cpu.stat /sys/fs/cgroup/cpu.stat 2>/dev/null' | sed -n 's/nr_throttled //p'`)
	if throttled == "" || throttled == "0" {
		t.Errorf("a container with --cpus 0.2 was throttled %q times", throttled)
	}
	c.expect(t, "refused", "docker run --rm --pids-limit 5 i sh -c '(for i in 1 2 3 4 5 6 7 8; do sleep 1 & done) 2>/dev/null || echo refused'")
}

// dockerView looks at what inner containers see of their limits.
func dockerView(t *testing.T, c *container) {
	const total = "sed -n 's/MemTotal: *//p' /proc/meminfo"
	c.expect(t, "1048576 kB", total)
	c.expect(t, "1048576 kB", "docker run --rm i "+total)
	c.expect(t, "262144 kB", "docker run --rm -m 256m i "+total)
	// And so does sysinfo(2) tell, unless the machine is too busy: then it tells of more.
	const asked = "for i in 1 2 3; do busybox free | awk 'NR==2{print $2}'; done | sort -n | head -n 1"
	c.expect(t, "1048576", asked)
	c.expect(t, "1048576", "docker run --rm i sh -c \""+strings.ReplaceAll(asked, "$", `\$`)+"\"")
	c.expect(t, "262144", "docker run --rm -m 256m i sh -c \""+strings.ReplaceAll(asked, "$", `\$`)+"\"")
}

func dockerPrivileged(t *testing.T, c *container) {
	c.expect(t, "mounted", "docker run --rm --privileged i sh -c 'mkdir /m && mount -t tmpfs t /m && grep -q \" /m tmpfs\" /proc/mounts && echo mounted'")
	c.expect(t, "added", "docker run --rm --privileged i sh -c 'ip link add d0 type bridge && echo added'")
	c.expect(t, "changed", "docker run --rm --privileged i sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward && echo changed'")
	c.expect(t, "denied", "docker run --rm --privileged i sh -c 'mknod /b b 8 0 2>/dev/null || echo denied'")
	c.expect(t, "0", "docker run --rm --pid=host --ipc=host --uts=host i id -u")
}

// dockerPause pauses the outer container, with dockerd and a crowd in one of its own.
func dockerPause(t *testing.T, c *container) {
	c.sh(t, "docker run -d --name crowd i sh -c 'for i in $(seq 100); do sleep 1000 & done; wait'")
	const processes = "docker top crowd -eo pid,args"
	c.await(t, "test $("+processes+" | grep -c 'sleep 1000$') = 100")
	before := c.sh(t, processes)
	c.node.Ctr(t.Context(), "tasks", "pause", c.id).Must(t)
	if _, state := c.node.Container(c.id).State(t); state != "PAUSED" {
		t.Errorf("it is %s when it was paused", state)
	}
	c.node.Ctr(t.Context(), "tasks", "resume", c.id).Must(t)
	if _, state := c.node.Container(c.id).State(t); state != "RUNNING" {
		t.Errorf("it is %s when it was resumed", state)
	}
	c.await(t, "docker version")
	if after := c.sh(t, processes); after != before {
		t.Errorf("processes inside were\n%s\nand are\n%s", before, after)
	}
	c.expect(t, "0", "docker exec crowd id -u")
	c.expect(t, "second", "docker run --rm i cat /layer")
	c.sh(t, "docker rm -f crowd")
}

// dockerRestart starts the outer container again, which then has other ids.
func dockerRestart(t *testing.T, c *container) {
	c.sh(t, "docker run --name keeper i sh -c 'echo kept >/file; chown 1000:1000 /file'")
	before := c.sh(t, "cat /proc/self/uid_map")
	c.restart(t)
	if after := c.sh(t, "cat /proc/self/uid_map"); after == before {
		t.Errorf("same ids as before: %s", after)
	}
	c.await(t, "docker version")
	c.expect(t, "overlay2", "docker info -f '{{.Driver}}'")
	c.expect(t, "kept 1000", "docker commit keeper k >/dev/null && docker run --rm k sh -c 'echo $(cat /file) $(stat -c %u /file)'")
	c.expect(t, "second", "docker run --rm i cat /layer")
	c.sh(t, "docker start keeper && docker rm -f keeper")
}

// get fetches a page as somebody on the node's network, as soon as there is a
// server.
func get(t *testing.T, address string) string {
	t.Helper()
	var r *http.Response
	var err error
	rig.Within(patience, func() bool { r, err = http.Get(address); return err == nil })
	if err != nil {
		t.Error(err)
		return ""
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(text))
}

var peersAddress string

// peers returns the address of a page on the node that tells its reader's
// address.
func peers(t *testing.T) string {
	t.Helper()
	if peersAddress != "" {
		return peersAddress
	}
	listener, err := net.Listen("tcp", "10.88.70.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintln(w, host)
	}))
	peersAddress = "http://" + listener.Addr().String() + "/"
	return peersAddress
}
