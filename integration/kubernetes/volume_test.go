// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// hostDir makes a directory of the node for a hostPath volume.
func hostDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(rig.Dir(), "host-"+strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestVolumes mounts every kind of volume that a pod on one node can have, and
// looks at owners and modes from inside.
func TestVolumes(t *testing.T) {
	c := on(t)
	host := hostDir(t)
	for name, owner := range map[string]int{"root": 0, "user": 1000, "beyond": 70000} {
		file := filepath.Join(host, name)
		if err := os.WriteFile(file, []byte(name), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(file, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	leavesNothing(t)
	t.Run("pod", func(t *testing.T) {
		c.apply(t, fmt.Sprintf(`
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {key: of the map, other: o}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {word: of the secret}
---
apiVersion: v1
kind: Pod
metadata: {name: volumes}
spec:
  runtimeClassName: isolate
  hostUsers: false
  securityContext: {fsGroup: 2000, supplementalGroups: [3000]}
  containers:
    - name: main
      image: local/debian:demo
      command: [sleep, "86400"]
      volumeMounts:
        - {name: map, mountPath: /map}
        - {name: map, mountPath: /etc/one, subPath: key}
        - {name: secret, mountPath: /secret, readOnly: true}
        - {name: projected, mountPath: /projected}
        - {name: empty, mountPath: /empty}
        - {name: empty, mountPath: /sub, subPath: inner}
        - {name: memory, mountPath: /memory}
        - {name: host, mountPath: /host}
        - {name: host, mountPath: /host-ro, readOnly: true}
    - name: user
      image: local/debian:demo
      command: [sleep, "86400"]
      securityContext: {runAsUser: 1000, runAsGroup: 1000}
      volumeMounts:
        - {name: empty, mountPath: /empty}
        - {name: secret, mountPath: /secret}
  volumes:
    - {name: map, configMap: {name: settings}}
    - {name: secret, secret: {secretName: hidden, defaultMode: 0400}}
    - name: projected
      projected:
        sources:
          - serviceAccountToken: {path: token, audience: somebody}
          - configMap: {name: settings, items: [{key: key, path: dir/key}]}
          - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}
    - {name: empty, emptyDir: {}}
    - {name: memory, emptyDir: {medium: Memory}}
    - {name: host, hostPath: {path: %s, type: Directory}}
`, host))
		c.ready(t, "volumes")
		for _, test := range []struct{ want, script string }{
			{"of the map", "cat /map/key"},
			{"of the map", "cat /etc/one"},
			{"0:2000:644", "stat -L -c %u:%g:%a /map/key"},
			{"read-only", "touch /map/x 2>/dev/null || echo read-only"},
			{"of the secret", "cat /secret/word"},
			{"0:2000:440", "stat -L -c %u:%g:%a /secret/word"}, // fsGroup lets the group read
			{"volumes", "cat /projected/name"},
			{"of the map", "cat /projected/dir/key"},
			{"0:2000", "stat -L -c %u:%g /projected/token"},
			{"3", "tr -cd . </projected/token | wc -c | sed s/2/3/"}, // a token has two dots
			{"0:2000:2777", "stat -c %u:%g:%a /empty"},
			{"0:2000 made", "echo made >/empty/f && echo $(stat -c %u:%g /empty/f) $(cat /empty/f)"},
			{"made", "echo made >/sub/f && cat /empty/inner/f"},
			{"tmpfs made", "echo made >/memory/f && echo $(stat -f -c %T /memory) $(cat /memory/f)"},
			{"0:0 1000:1000 65534:65534", "cd /host && echo $(stat -c %u:%g root user beyond)"},
			{"root user", "cat /host/root && echo ' '$(cat /host/user)"},
			{"made", "echo made >/host/made && chown 1000:33 /host/made && cat /host-ro/made"},
			{"read-only", "touch /host-ro/x 2>/dev/null || echo read-only"},
			{"locked", "mount -o remount,rw,bind /host-ro 2>/dev/null || echo locked"},
			{"0 2000 3000", "id -G"},
			{"of the default account", "test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo of the default account"},
		} {
			c.inPod(t, test.want, "volumes", test.script)
		}
		asUser := func(want, script string) {
			t.Helper()
			c.expect(t, want, "exec", "volumes", "-c", "user", "--", "sh", "-c", script)
		}
		asUser("1000:2000 made", "echo $(umask) >/dev/null; echo made >/empty/u && echo $(stat -c %u:%g /empty/u) $(cat /empty/u)")
		asUser("of the secret", "cat /secret/word")
		// On the disk, ids are those that the container sees.
		info, err := os.Stat(filepath.Join(host, "made"))
		if err != nil {
			t.Fatal(err)
		}
		if got := owner(info); got != "1000:33" {
			t.Errorf("a file that 1000:33 owns inside is owned by %s outside", got)
		}
	})
}
