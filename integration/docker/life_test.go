// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/manual"
	"github.com/isolate-shim/isolate/integration/rig"
)

// hostID returns the host's id for the container's root.
func (d *daemon) hostID(t *testing.T, name string) uint64 {
	t.Helper()
	fields := strings.Fields(d.in(t, name, "cat /proc/self/uid_map"))
	if len(fields) != 3 || fields[0] != "0" || fields[2] != "65536" {
		t.Fatalf("uid_map is %v", fields)
	}
	id, err := strconv.ParseUint(fields[1], 10, 32)
	if err != nil || id == 0 {
		t.Fatalf("uid_map is %v", fields)
	}
	return id
}

func identity(t *testing.T, d *daemon) {
	a, b := d.start(t, nil), d.start(t, nil)
	if d.hostID(t, a) == d.hostID(t, b) {
		t.Error("two containers have the same host ids")
	}
	d.expect(t, "0:0 1000:1000 33:1000 2775", a, "echo $(stat -c %u:%g /) $(stat -c %u:%g /home/user/file) $(stat -c '%u:%g %a' /srv/shared)")
	d.expect(t, "served by the client image", a, "cat /www/index.html")
	// The files that dockerd writes for each container.
	d.expect(t, "0:0 0:0 0:0", a, "echo $(stat -c %u:%g /etc/hosts /etc/hostname /etc/resolv.conf)")
}

func streams(t *testing.T, d *daemon) {
	r := d.run(t, nil, "echo out; echo err >&2; exit 42")
	if r.Stdout != "out\n" || r.Stderr != "err\n" || r.Code != 42 {
		t.Errorf("printed %q and %q, exited with %d", r.Stdout, r.Stderr, r.Code)
	}
	c := d.start(t, nil, "sh", "-c", "echo out; echo err >&2; exec sleep infinity")
	rig.Eventually(t, "logs", func() bool {
		r := d.Run(t.Context(), "logs", c)
		return r.Stdout == "out\n" && r.Stderr == "err\n"
	})
	shell := func(command string) rig.Result {
		return rig.Exec(t.Context(), "sh", "-c", strings.ReplaceAll(command, "docker ", strings.Join(d.Client(), " ")+" "))
	}
	run := strings.Join(d.args(nil, []string{"--rm", "-i"}, d.image, nil), " ")
	if got := shell("echo in | docker " + run + " cat").Must(t); got != "in" {
		t.Errorf("stdin arrived as %q", got)
	}
	if got := shell("echo in | docker exec -i " + c + " cat").Must(t); got != "in" {
		t.Errorf("stdin of exec arrived as %q", got)
	}
	// A terminal belongs to the container, with -t and without -i, and in exec.
	const terminal = "sh -c 'tty; stat -c %u:%g:%t /dev/pts/0 /dev/console; echo x >/dev/tty'"
	const want = "/dev/pts/0\r\n0:5:88\r\n0:5:88\r\nx\r\n"
	tty := strings.Join(d.args(nil, []string{"--rm", "-t"}, d.image, nil), " ")
	if got := shell("docker "+tty+" "+terminal).Must(t) + "\n"; got != want {
		t.Errorf("with -t: %q, want %q", got, want)
	}
	rig.Require(t, rig.Command("script"))
	inner := strings.ReplaceAll("docker exec -it "+c+" sh -c \"id -u; tty\"", "docker ", strings.Join(d.Client(), " ")+" ")
	if got := rig.Exec(t.Context(), "script", "-qefc", inner, "/dev/null").Must(t); !strings.Contains(got, "0\r\n") || !strings.Contains(got, "/dev/pts/") {
		t.Errorf("exec -it: %q", got)
	}
	d.expect(t, "1000", c, "id -u user")
	if got := d.docker(t, "exec", "-u", "user", c, "id"); got != "uid=1000(user) gid=1000(user) groups=1000(user)" {
		t.Errorf("exec -u: %s", got)
	}
	if r := d.Run(t.Context(), "exec", c, "sh", "-c", "exit 7"); r.Code != 7 {
		t.Errorf("exec exited with %d", r.Code)
	}
}

func lifecycle(t *testing.T, d *daemon) {
	c := d.start(t, []string{"--hostname", "box"})
	first := d.hostID(t, c)
	d.in(t, c, "echo kept >/kept && chown 1000:33 /kept && rm /etc/debian_version")
	for _, again := range [][]string{{"restart", "-t", "0"}, {"stop", "-t", "0"}, {"kill"}} {
		d.docker(t, append(again, c)...)
		if again[0] != "restart" {
			if got := d.inspect(t, c, "{{.State.Status}} {{.State.ExitCode}}"); got != "exited 137" {
				t.Errorf("after %s: %s", again[0], got)
			}
			d.docker(t, "start", c)
		}
		if d.hostID(t, c) == first {
			t.Errorf("same host ids after %s", again[0])
		}
		d.expect(t, "kept 1000:33 box gone", c, "echo $(cat /kept) $(stat -c %u:%g /kept) $(hostname) $(test -e /etc/debian_version || echo gone)")
	}
	d.docker(t, "rename", c, c+"-renamed")
	d.expect(t, "kept", c+"-renamed", "cat /kept")
	d.docker(t, "rename", c+"-renamed", c)
	d.docker(t, "rm", "--force", c)

	created := d.name(t)
	d.docker(t, append(append([]string{"create", "--pull=never"}, d.flags...), "--name", created, d.image, "cat", "/home/user/file")...)
	if got := d.docker(t, "start", "-a", created); got != "mine" {
		t.Errorf("start -a prints %q", got)
	}
	if got := d.docker(t, "start", "-a", created); got != "mine" {
		t.Errorf("start -a prints %q the second time", got)
	}
}

// restartPolicy is where dockerd unmounts and mounts again at once.
func restartPolicy(t *testing.T, d *daemon) {
	c := d.start(t, []string{"--restart", "always"}, "sh", "-c", "echo x >>/starts; sleep 0.1")
	rig.Eventually(t, "three restarts", func() bool {
		n, err := strconv.Atoi(d.inspect(t, c, "{{.RestartCount}}"))
		return err == nil && n >= 3
	})
	// It ends all the time, and dockerd cannot update it just then.
	rig.Eventually(t, "update", func() bool { return d.Run(t.Context(), "update", "--restart", "no", c).Err() == nil })
	d.docker(t, "stop", c)
	d.docker(t, "cp", c+":/starts", t.TempDir())
}

func pause(t *testing.T, d *daemon) {
	c := d.start(t, nil)
	d.docker(t, "pause", c)
	if got := d.inspect(t, c, "{{.State.Status}}"); got != "paused" {
		t.Errorf("status is %s", got)
	}
	d.refused(t, d.Run(t.Context(), "exec", c, "true"), "is paused")
	// The administrator's command says what Docker says.
	programs, err := rig.Built(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := rig.Exec(t.Context(), programs["isolatectl"], "ps")
	if text := r.Must(t); !regexp.MustCompile(`(?m)^moby +` + d.inspect(t, c, "{{.Id}}")[:12] + ` +` + c + ` +\S+ +paused +own `).MatchString(text) {
		t.Errorf("isolatectl ps prints %q, %q", text, r.Stderr)
	}
	d.docker(t, "unpause", c)
	d.expect(t, "0", c, "id -u")
}

func signals(t *testing.T, d *daemon) {
	c := d.start(t, nil, "sh", "-c", "trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.1; done")
	rig.Eventually(t, "ready", func() bool { return d.docker(t, "logs", c) == "ready" })
	d.docker(t, "kill", "--signal", "USR1", c)
	if got := d.docker(t, "wait", c); got != "3" {
		t.Errorf("wait says %s", got)
	}
	if got := d.docker(t, "logs", c); got != "ready\ngot it" {
		t.Errorf("logs: %q", got)
	}
	c = d.start(t, []string{"--stop-signal", "USR1", "--init"}, "sh", "-c", "trap 'exit 5' USR1; echo ready; while :; do sleep 0.1; done")
	rig.Eventually(t, "ready", func() bool { return d.docker(t, "logs", c) == "ready" })
	d.expect(t, "docker-init", c, "cat /proc/1/comm")
	d.docker(t, "stop", c)
	if got := d.inspect(t, c, "{{.State.ExitCode}}"); got != "5" {
		t.Errorf("exit status is %s", got)
	}
}

func health(t *testing.T, d *daemon) {
	c := d.start(t, []string{"--health-cmd", "test -e /well", "--health-interval", "1s", "--health-retries", "1"})
	rig.Eventually(t, "unhealthy", func() bool { return d.inspect(t, c, "{{.State.Health.Status}}") == "unhealthy" })
	d.in(t, c, "touch /well")
	rig.Eventually(t, "healthy", func() bool { return d.inspect(t, c, "{{.State.Health.Status}}") == "healthy" })
}

func limits(t *testing.T, d *daemon) {
	const total = "sed -n 's/MemTotal: *//p' /proc/meminfo"
	c := d.start(t, []string{"--memory", "128m", "--cpus", "1"})
	d.expect(t, "131072 kB 1", c, "echo $("+total+") $(grep -c ^processor /proc/cpuinfo)")
	d.prints(t, "refused", []string{"--pids-limit", "30"}, "(for i in $(seq 40); do sleep 1 & done) 2>/dev/null || echo refused")
	d.docker(t, "update", "--memory", "200m", "--memory-swap", "200m", c)
	d.expect(t, "204800 kB", c, total)
	if got := d.docker(t, "stats", "--no-stream", "--format", "{{.MemUsage}}", c); !strings.HasSuffix(got, "/ 200MiB") || strings.HasPrefix(got, "0B") {
		t.Errorf("stats: %s", got)
	}
	if got := d.docker(t, "top", c, "-o", "pid,uid,comm"); !strings.Contains(got, strconv.FormatUint(d.hostID(t, c), 10)) || !strings.Contains(got, "sleep") {
		t.Errorf("top: %s", got)
	}
	// README's first command, on an image with as few programs as Debian's own.
	if got := d.paste(t, manual.Commands(t, "README.md", "docker run --rm -m 256m"), " debian ", " "+d.image+" "); got != "MemTotal: 262144 kB" {
		t.Errorf("README's first command prints %q", got)
	}
	// As much as the limit leaves, and more.
	d.prints(t, "fits", []string{"--memory", "64m"}, "busybox dd if=/dev/zero of=/dev/null bs=20M count=1 2>/dev/null && echo fits")
	if r := d.run(t, []string{"--memory", "64m", "--memory-swap", "64m"}, "exec busybox dd if=/dev/zero of=/dev/null bs=200M count=1"); r.Code != 137 {
		t.Errorf("beyond the limit: exited with %d: %s", r.Code, r.Stderr)
	}
}
