// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// kubectl runs the client as an administrator.
func (c *cluster) kubectl(ctx context.Context, args ...string) rig.Result {
	return rig.Exec(ctx, slices.Concat([]string{c.kubelet.Program("kubectl"), "--kubeconfig", c.file("kubeconfig"), "--cache-dir", c.file("cache")}, args)...)
}

// must runs kubectl, which must succeed, and returns what it prints.
func (c *cluster) must(t *testing.T, args ...string) string {
	t.Helper()
	return c.kubectl(t.Context(), args...).Must(t)
}

// expect fails the test, and lets it go on, unless kubectl prints just this.
func (c *cluster) expect(t *testing.T, want string, args ...string) {
	t.Helper()
	r := c.kubectl(t.Context(), args...)
	if got := strings.TrimSpace(r.Stdout); got != want || r.Err() != nil {
		t.Errorf("kubectl %s: exited with %d, printed %q, want %q\n%s", strings.Join(args, " "), r.Code, got, want, r.Stderr)
	}
}

// inPod is expect for a shell script in a pod.
func (c *cluster) inPod(t *testing.T, want, pod, script string) {
	t.Helper()
	c.expect(t, want, "exec", pod, "--", "sh", "-c", script)
}

// await repeats kubectl until it prints this.
func (c *cluster) await(t *testing.T, want string, args ...string) {
	t.Helper()
	var r rig.Result
	prints := func() bool {
		r = c.kubectl(t.Context(), args...)
		return strings.TrimSpace(r.Stdout) == want && r.Err() == nil
	}
	if rig.Within(patience, prints) {
		return
	}
	t.Errorf("kubectl %s: for %s: exited with %d, printed %q, want %q\n%s", strings.Join(args, " "), patience, r.Code, r.Stdout, want, r.Stderr)
}

// apply creates objects, and deletes them when the test ends, at once and for
// good.
func (c *cluster) apply(t *testing.T, yaml string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.describe())
		}
		// The context of the test has ended.
		if err := c.kubectl(context.Background(), "delete", "--wait", "--ignore-not-found", "--grace-period=1", "-f", file).Err(); err != nil {
			t.Error(err)
		}
	})
	c.must(t, "apply", "-f", file)
}

// ready waits until pods are.
func (c *cluster) ready(t *testing.T, pods ...string) {
	t.Helper()
	for _, pod := range pods {
		if err := c.kubectl(t.Context(), "wait", "--for=condition=Ready", "--timeout=100s", "pod/"+pod).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// ended waits for the end of a pod and returns its log.
func (c *cluster) ended(t *testing.T, pod, phase string) string {
	t.Helper()
	c.await(t, phase, "get", "pod", pod, "-o", "jsonpath={.status.phase}")
	return c.must(t, "logs", pod, "--all-containers")
}

// describe is what an administrator looks at when something is wrong.
func (c *cluster) describe() string {
	ctx := context.Background()
	var text strings.Builder
	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide"}, {"describe", "pods"}, {"get", "events", "-A", "--sort-by=.lastTimestamp"},
	} {
		r := c.kubectl(ctx, args...)
		fmt.Fprintf(&text, "kubectl %s:\n%s%s\n", strings.Join(args, " "), r.Stdout, r.Stderr)
	}
	return text.String()
}

// logged returns what shims have logged that contains all parts.
func (c *cluster) logged(t *testing.T, parts ...string) []string {
	t.Helper()
	text, err := os.ReadFile(c.node.Log)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "isolate:") && !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			lines = append(lines, line)
		}
	}
	return lines
}
