// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/rig"
)

// binDir is where the installer puts the programs, since a rig's /usr is the
// machine's.
const binDir = "/etc/opt/isolate/bin"

// loadOwnImages makes the images of deploy/Containerfile and imports them.
func (c *cluster) loadOwnImages(ctx context.Context) error {
	built, err := rig.Built(ctx)
	if err != nil {
		return err
	}
	ctl, shim := built["isolatectl"], built["containerd-shim-isolate-v1"]
	path := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, i := range []struct {
		name  string
		base  image.Name
		files map[string]string
	}{
		{"isolate", "", map[string]string{"/isolatectl": ctl, "/containerd-shim-isolate-v1": shim}},
		{"isolate-lxcfs", image.Lxcfs, map[string]string{"/isolatectl": ctl}},
	} {
		made, err := image.Assemble(ctx, c.file(i.name+".tar"), "docker.io/library/"+i.name+":latest", i.base, i.files,
			ocispec.ImageConfig{Env: path, Entrypoint: []string{"/isolatectl"}})
		if err != nil {
			return err
		}
		if err := c.node.Ctr(ctx, "--namespace", "k8s.io", "images", "import", "--local", made.Path).Err(); err != nil {
			return err
		}
	}
	return nil
}

// overlay is a kustomization on top of one of deploy/, with what is different
// about a rig: where containerd's socket is, where programs go, and that no
// systemd starts containerd again.
func (c *cluster) overlay(name string) (string, error) {
	copied := c.file("deploy")
	if err := os.CopyFS(copied, os.DirFS("../../deploy")); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	dir := c.file("overlay-" + name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	text := fmt.Sprintf("resources: [../%s]\n", filepath.Join("deploy", name))
	if name != "lxcfs" {
		args := []string{"--address=" + c.node.Address, "--restart=signal"}
		if name == "install" {
			args = append(args, "--bin-dir="+binDir)
		}
		var patch strings.Builder
		for _, arg := range args {
			fmt.Fprintf(&patch, "      - {op: add, path: /spec/template/spec/initContainers/0/args/-, value: %q}\n", arg)
		}
		text += "patches:\n  - target: {kind: DaemonSet, name: isolate}\n    patch: |-\n" + patch.String()
	}
	return dir, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o644)
}

// deploy applies what is in deploy/ and waits until it is done.
func (c *cluster) deploy(ctx context.Context, name, daemonSet string) error {
	dir, err := c.overlay(name)
	if err != nil {
		return err
	}
	if err := c.kubectl(ctx, "apply", "-k", dir).Err(); err != nil {
		return err
	}
	if err := c.kubectl(ctx, "-n", "isolate-system", "rollout", "status", "--timeout=100s", "daemonset/"+daemonSet).Err(); err != nil {
		return errors.Join(err, errors.New(c.describe()))
	}
	return nil
}

// TestDeploy checks that what is in deploy/ did its work on this cluster.
func TestDeploy(t *testing.T) {
	c := on(t)
	log := c.must(t, "-n", "isolate-system", "logs", "daemonset/isolate", "-c", "install")
	for _, part := range []string{"wrote /etc/containerd/conf.d/isolate.toml", "knows the handler isolate, with user namespaces", "labelled node node1"} {
		if !strings.Contains(log, part) {
			t.Errorf("%q is not in the installer's log:\n%s", part, log)
		}
	}
	c.expect(t, "true", "get", "node", nodeName, "-o", `jsonpath={.metadata.labels.isolate-shim\.github\.io/ready}`)
	// What the kubelet has learned of the handler.
	c.await(t, "true", "get", "node", nodeName, "-o", `jsonpath={.status.runtimeHandlers[?(@.name=="isolate")].features.userNamespaces}`)
}

// TestInstallerMayOnlyLabelItsNode tries what the installer's service account
// could do if somebody took it over.
func TestInstallerMayOnlyLabelItsNode(t *testing.T) {
	c := on(t)
	pod := c.must(t, "-n", "isolate-system", "get", "pod", "-l", "app.kubernetes.io/name=isolate", "-o", "jsonpath={.items[0].metadata.name}")
	uid := c.must(t, "-n", "isolate-system", "get", "pod", pod, "-o", "jsonpath={.metadata.uid}")
	token := func(args ...string) string {
		t.Helper()
		return c.must(t, append([]string{"-n", "isolate-system", "create", "token", "isolate"}, args...)...)
	}
	bound, free := token("--bound-object-kind", "Pod", "--bound-object-name", pod, "--bound-object-uid", uid), token()
	c.apply(t, "apiVersion: v1\nkind: Node\nmetadata: {name: another}\n")
	const label = `{"metadata": {"labels": {"isolate-shim.github.io/ready": "true"}}}`
	for _, test := range []struct {
		name, token, node, patch string
		says                     string // "" if it is allowed
	}{
		{"its label", bound, nodeName, label, ""},
		{"another label", bound, nodeName, `{"metadata": {"labels": {"zone": "x"}}}`, "only change the label"},
		{"removing another label", bound, nodeName, `{"metadata": {"labels": {"kubernetes.io/arch": null}}}`, "only change the label"},
		{"an annotation", bound, nodeName, `{"metadata": {"annotations": {"a": "b"}}}`, "only change the label"},
		{"a taint", bound, nodeName, `{"spec": {"unschedulable": true}}`, "only change the label"},
		{"another node", bound, "another", label, "only change the node that it runs on"},
		{"a token of no pod", free, nodeName, label, "only change the node that it runs on"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, answer := c.patchNode(t, test.token, test.node, test.patch)
			if allowed := status == http.StatusOK; allowed != (test.says == "") || !strings.Contains(answer, test.says) {
				t.Errorf("status %d: %.500s, want %q", status, answer, test.says)
			}
		})
	}
	r := c.kubectl(t.Context(), "--token", bound, "get", "secrets", "-A")
	if r.Code == 0 {
		t.Error("it may read secrets")
	}
}

// patchNode is the request that the installer makes. kubectl would read the node
// first, which the installer may not.
func (c *cluster) patchNode(t *testing.T, token, node, patch string) (status int, answer string) {
	t.Helper()
	authority, err := os.ReadFile(c.file("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	client := http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, "https://"+serviceIP+"/api/v1/nodes/"+node, strings.NewReader(patch))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/merge-patch+json")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}
