// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"os"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

const dockerfile = `FROM %s
COPY --chown=1000:33 file /copied
RUN tr -s ' ' </proc/self/uid_map | cut -d' ' -f2,4 >/ran && chown 33 /ran && cp /usr/bin/sleep /capable && setcap cap_net_raw+ep /capable
RUN rm /etc/debian_version && useradd --uid 2000 builder
USER builder
RUN id -u >/tmp/user
`

// build is what the classic builder does, which runs its steps with the default
// runtime. (BuildKit, which dockerd has built in, runs them with runc by itself.)
func build(t *testing.T, d *daemon) {
	dir := t.TempDir()
	for name, text := range map[string]string{"Dockerfile": strings.ReplaceAll(dockerfile, "%s", d.image), "file": "copied\n"} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const img = "docker.io/local/built:1"
	rig.Exec(t.Context(), append([]string{"env", "DOCKER_BUILDKIT=0"}, append(d.Client(), "build", "--tag", img, dir)...)...).Must(t)
	defer func() { d.docker(t, "rmi", "--force", img) }()
	const look = "stat -c '%n %u:%g' /copied /ran /tmp/user; getcap /capable; cut -d' ' -f2 /ran; cat /tmp/user; test -e /etc/debian_version || echo gone; id -u"
	const want = "/copied 1000:33\n/ran 33:0\n/tmp/user 2000:2000\n/capable cap_net_raw=ep\n65536\n2000\ngone\n2000"
	for _, flags := range [][]string{d.flags, {"--runtime", "runc"}} {
		args := append(append([]string{"run", "--rm", "--pull=never"}, flags...), img, "sh", "-c", look)
		if got := d.docker(t, args...); got != want {
			t.Errorf("with %q:\n%s\nwant\n%s", flags, got, want)
		}
	}
}
