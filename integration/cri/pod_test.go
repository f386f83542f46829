// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// message is a message of the CRI, in JSON (k8s.io/cri-api, runtime/v1).
type message = map[string]any

// pod is a pod sandbox.
type pod struct {
	n    *node
	id   string
	file string // its configuration, which crictl wants with each container
	logs string // directory
}

// container is a container of a pod.
type container struct {
	pod  *pod
	id   string
	logs string // file
}

var made int

// merge puts b over a, table by table.
func merge(a, b message) message {
	for key, value := range b {
		if table, ok := value.(message); ok {
			if have, ok := a[key].(message); ok {
				merge(have, table)
				continue
			}
		}
		a[key] = value
	}
	return a
}

// write writes a configuration to a file.
func write(t *testing.T, m message) string {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	made++
	file := filepath.Join(t.TempDir(), fmt.Sprintf("m%d.json", made))
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// try runs crictl.
func (n *node) try(args ...string) rig.Result {
	return rig.Exec(context.Background(), slices.Concat([]string{n.crictl, "--runtime-endpoint", "unix://" + n.Address, "--timeout", "60s"}, args)...)
}

// podConfig is that of an ordinary pod, with changes.
func (n *node) podConfig(t *testing.T, change message) (file, logs string) {
	t.Helper()
	made++
	logs = filepath.Join(rig.Dir(), "tmp", fmt.Sprintf("logs%d", made))
	name := fmt.Sprintf("pod%d", made)
	return write(t, merge(message{
		"metadata":      message{"name": name, "namespace": "default", "uid": name, "attempt": 1},
		"log_directory": logs,
		"linux":         message{"cgroup_parent": "/test", "security_context": message{}},
	}, change)), logs
}

// tryPod runs a pod with a handler.
func (n *node) tryPod(t *testing.T, handler string, change message) (*pod, rig.Result) {
	t.Helper()
	file, logs := n.podConfig(t, change)
	r := n.try("runp", "--runtime", handler, file)
	p := &pod{n: n, id: strings.TrimSpace(r.Stdout), file: file, logs: logs}
	if r.Err() == nil {
		t.Cleanup(func() { p.remove(t) })
	} else if err := os.RemoveAll(logs); err != nil {
		t.Error(err)
	}
	return p, r
}

// pod runs an isolated pod, which goes away with the test.
func (n *node) pod(t *testing.T, change message) *pod {
	t.Helper()
	p, r := n.tryPod(t, handler, change)
	r.Must(t)
	return p
}

func (p *pod) remove(t *testing.T) {
	t.Helper()
	if err := p.n.try("rmp", "--force", p.id).Err(); err != nil && !strings.Contains(err.Error(), "NotFound") {
		t.Error(err)
	}
	if err := os.RemoveAll(p.logs); err != nil {
		t.Error(err)
	}
}

// own are the options of a pod as the kubelet has them by default: each container
// has a process namespace of its own (NamespaceMode CONTAINER).
func own() message { return namespaces(message{"pid": 1}) }

// mapped are the options of a pod for which the kubelet has mapped ids
// (hostUsers: false), from a first one on.
func mapped(first int) message {
	ids := []message{{"container_id": 0, "host_id": first, "length": 65536}}
	return namespaces(message{"pid": 1, "userns_options": message{"mode": 0, "uids": ids, "gids": ids}})
}

func namespaces(options message) message {
	return message{"linux": message{"security_context": message{"namespace_options": options}}}
}

// security puts a container's security context beside the namespaces of its pod,
// which the kubelet repeats for each container.
func security(pod, container message) message {
	return message{"linux": message{"security_context": merge(message{"namespace_options": namespacesOf(pod)}, container)}}
}

// namespacesOf are the namespace options of a pod.
func namespacesOf(pod message) message {
	for _, key := range []string{"linux", "security_context", "namespace_options"} {
		pod, _ = pod[key].(message)
	}
	return pod
}

// mapping is the id mapping of a pod that is mapped, or nil.
func mapping(pod message) []message {
	options, _ := namespacesOf(pod)["userns_options"].(message)
	ids, _ := options["uids"].([]message)
	return ids
}

// mount is a volume of a container, for which the kubelet asks to be mapped if the
// pod is.
func mount(pod message, host, container string) message {
	m := message{"host_path": host, "container_path": container}
	if ids := mapping(pod); ids != nil {
		m["uidMappings"], m["gidMappings"] = ids, ids
	}
	return m
}

// tryContainer makes a container, but does not start it.
func (p *pod) tryContainer(t *testing.T, change message) (*container, rig.Result) {
	t.Helper()
	made++
	name := fmt.Sprintf("container%d", made)
	file := write(t, merge(message{
		"metadata": message{"name": name, "attempt": 1},
		"image":    message{"image": busybox},
		"command":  []string{"sleep", "100000"},
		"log_path": name + ".log",
		"linux":    message{"security_context": message{}},
	}, change))
	r := p.n.try("create", "--no-pull", p.id, file, p.file)
	return &container{pod: p, id: strings.TrimSpace(r.Stdout), logs: filepath.Join(p.logs, name+".log")}, r
}

const busybox = "docker.io/local/busybox:1"

// container starts a container.
func (p *pod) container(t *testing.T, change message) *container {
	t.Helper()
	c, r := p.tryContainer(t, change)
	r.Must(t)
	c.start(t)
	return c
}

func (c *container) start(t *testing.T) {
	t.Helper()
	c.pod.n.try("start", c.id).Must(t)
}

// try runs a shell script in a container.
func (c *container) try(script string) rig.Result {
	return c.pod.n.try("exec", "--sync", c.id, "sh", "-c", script)
}

// sh runs a shell script in a container and returns what it prints.
func (c *container) sh(t *testing.T, script string) string {
	t.Helper()
	r := c.try(script)
	if r.Err() != nil {
		t.Fatalf("in container: %s\n%v", script, r.Err())
	}
	return strings.TrimSpace(r.Stdout)
}
