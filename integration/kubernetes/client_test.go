// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestKubectl uses what people use on a pod: exec, cp, logs, attach, port-forward
// and debug.
func TestKubectl(t *testing.T) {
	c := on(t)
	leavesNothing(t)
	t.Run("pod", func(t *testing.T) {
		c.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: used}
spec:
  runtimeClassName: isolate
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: local/debian:demo
      stdin: true
      command: [bash, -c, 'echo started; while read line; do echo "read $line"; done; sleep 86400']
    - name: web
      image: docker.io/local/inner:1
      command: [httpd, -f, -h, /www]
`)
		c.ready(t, "used")
		t.Run("exec", func(t *testing.T) {
			c.expect(t, "0", "exec", "used", "--", "id", "-u")
			r := c.kubectl(t.Context(), "exec", "used", "--", "sh", "-c", "echo out; echo error >&2; exit 7")
			if r.Code != 7 || r.Stdout != "out\n" || !strings.Contains(r.Stderr, "error\n") {
				t.Errorf("%+v", r)
			}
		})
		t.Run("cp", func(t *testing.T) {
			in, out := filepath.Join(t.TempDir(), "in"), filepath.Join(t.TempDir(), "out")
			if err := os.WriteFile(in, []byte("carried"), 0o640); err != nil {
				t.Fatal(err)
			}
			c.must(t, "cp", "-c", "main", in, "used:/srv/carried")
			c.inPod(t, "carried 0", "used", "echo $(cat /srv/carried) $(stat -c %u /srv/carried)")
			c.must(t, "cp", "-c", "main", "used:/srv/carried", out)
			if text, err := os.ReadFile(out); err != nil || string(text) != "carried" {
				t.Errorf("got %q, %v", text, err)
			}
		})
		t.Run("attach", func(t *testing.T) {
			attach := exec.CommandContext(t.Context(), c.kubelet.Program("kubectl"), "--kubeconfig", c.file("kubeconfig"), "attach", "-i", "used", "-c", "main")
			attach.Stdin = strings.NewReader("a line\n")
			if out, err := attach.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			c.await(t, "started\nread a line", "logs", "used", "-c", "main")
		})
		t.Run("port-forward", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			forward := exec.CommandContext(ctx, c.kubelet.Program("kubectl"), "--kubeconfig", c.file("kubeconfig"), "port-forward", "pod/used", ":80")
			stdout, err := forward.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := forward.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				cancel()
				_ = forward.Wait() // it was killed
			}()
			first := make([]byte, 200)
			n, err := stdout.Read(first)
			found := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(string(first[:n]))
			if found == "" {
				t.Fatalf("it says %q, %v", first[:n], err)
			}
			response, err := http.Get("http://" + found + "/")
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if text, err := io.ReadAll(response.Body); err != nil || string(text) != "served by the inner image\n" {
				t.Errorf("got %q, %v", text, err)
			}
		})
		t.Run("debug", func(t *testing.T) {
			// Beside the container, in its pid namespace, so in the same range.
			c.must(t, "debug", "used", "--image", "local/debian:demo", "--image-pull-policy", "IfNotPresent", "--target", "main", "--container", "helper", "--profile", "general", "--",
				"sh", "-c", "cat /proc/self/uid_map; tr '\\0' ' ' </proc/1/cmdline; cat /proc/1/root/srv/carried; echo; sleep 86400")
			ids := c.must(t, "exec", "used", "-c", "main", "--", "cat", "/proc/self/uid_map")
			c.await(t, strings.TrimSpace(ids)+"\nbash -c echo started; while read line; do echo \"read $line\"; done; sleep 86400 carried", "logs", "used", "-c", "helper")
		})
	})
}
