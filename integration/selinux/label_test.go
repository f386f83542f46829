// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	_ "embed" // the policy
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

const (
	mountpoint = "/sys/fs/selinux"
	kernelType = "kernel_t"
	label      = "system_u:system_r:%s:s0:c1,c2"
	fileLabel  = "system_u:object_r:container_file_t:s0:c1,c2"
)

//go:embed testdata/base.cil
var base string

// load loads a policy with types, in the place of the one before.
func load(t *testing.T, types ...string) {
	t.Helper()
	compiler, err := peer.Get(t.Context(), peer.Secilc)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := base
	for _, name := range types {
		text += fmt.Sprintf("(type %[1]s)\n(roletype system_r %[1]s)\n", name)
	}
	source, policy := filepath.Join(dir, "policy.cil"), filepath.Join(dir, "policy")
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	rig.Exec(t.Context(), compiler.Program("secilc"), "--output", policy, "--filecontext", filepath.Join(dir, "files"), source).Must(t)
	binary, err := os.ReadFile(policy)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mountpoint, "load"), binary, 0); err != nil {
		t.Fatal(err)
	}
}

// node is a containerd, and a specification and a root for containers on it.
type node struct {
	*rig.Machine
	spec specs.Spec
}

// startNode makes the specification from the one that ctr makes, which knows no
// labels.
func startNode(t *testing.T, runtime peer.Name) *node {
	t.Helper()
	n := &node{Machine: rig.MachineFor(t, rig.Config{Runc: runtime})}
	reference := n.Image(t, image.Inner)
	n.Ctr(t.Context(), "containers", "create", reference, "model", "sleep", "100000").Must(t)
	if err := json.Unmarshal([]byte(n.Ctr(t.Context(), "containers", "info", "--spec", "model").Must(t)), &n.spec); err != nil {
		t.Fatal(err)
	}
	n.Ctr(t.Context(), "containers", "rm", "model").Must(t)
	n.spec.Root.Path = filepath.Join(t.TempDir(), "rootfs")
	for _, layer := range n.Layers(t) {
		if _, err := os.Stat(filepath.Join(layer, "usr/bin/busybox")); err == nil {
			rig.Exec(t.Context(), "cp", "-a", layer, n.spec.Root.Path).Must(t)
		}
	}
	return n
}

// labels starts a container with a label and returns that of its first process and
// that of another one.
func (n *node) labels(t *testing.T, id, given string) string {
	t.Helper()
	s := n.spec
	process := *s.Process
	process.SelinuxLabel = given
	s.Process = &process
	linux := *s.Linux
	s.Linux = &linux
	if given != "" {
		s.Linux.MountLabel = fileLabel // as callers do
	}
	s.Linux.CgroupsPath = "/default/" + id
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Container(id).Remove(t) })
	n.Ctr(t.Context(), "run", "--detach", "--runtime", rig.Shim, "--config", file, id).Must(t)
	out := n.Container(id).Sh(t, "cat /proc/1/attr/current; echo; cat /proc/self/attr/current").Must(t)
	return strings.ReplaceAll(out, "\x00", "")
}

// fileLabels looks at what the shim makes for a container: it is the container's, as
// is what the runtime mounts.
func (n *node) fileLabels(t *testing.T, id string) {
	t.Helper()
	pid := strconv.Itoa(n.Container(id).Pid(t))
	for _, file := range []string{"dev/fuse", "dev/net/tun", "proc/sys/kernel/panic", "dev/shm"} {
		value := make([]byte, 256)
		size, err := unix.Lgetxattr(filepath.Join("/proc", pid, "root", file), "security.selinux", value)
		if err != nil {
			t.Errorf("label of %s: %v", file, err)
		} else if got := strings.TrimRight(string(value[:size]), "\x00"); got != fileLabel {
			t.Errorf("label of %s is %q, want %q", file, got, fileLabel)
		}
	}
}

// TestLabels looks at the labels that processes really have.
func TestLabels(t *testing.T) {
	rig.Require(t, rig.Root, rig.SELinux, rig.CgroupV2)
	current, err := os.ReadFile("/proc/self/attr/current")
	if err != nil || strings.Trim(string(current), "\x00\n") != "kernel" {
		t.Fatalf("this machine has a policy: label %q, %v", current, err)
	}
	if err := unix.Mount("selinuxfs", mountpoint, "selinuxfs", unix.MS_NOSUID|unix.MS_NOEXEC, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	rig.Configure(t, "[lxcfs]\nmode = \"off\"\n")
	// A daemon finds out once whether SELinux is on, so that a policy comes first.
	load(t, "container_t")
	nodes, whole := map[peer.Name]*node{}, t
	for i, tt := range []struct {
		name    string
		runtime peer.Name
		policy  []string
		given   string
		want    string
		warns   bool
	}{
		{"policy without types for nesting", peer.Runc15, []string{"container_t"}, "container_t", "container_t", true},
		{"policy with them", peer.Runc15, []string{"container_t", "container_engine_t", "container_init_t"}, "container_t", "container_engine_t", false},
		{"crun", peer.Crun121, []string{"container_t", "container_engine_t"}, "container_t", "container_engine_t", false},
		{"asked for another", peer.Runc15, []string{"container_t", "container_engine_t", "spc_t"}, "spc_t", "spc_t", false},
		{"none", peer.Runc15, []string{"container_t", "container_engine_t"}, "", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			load(t, tt.policy...)
			if nodes[tt.runtime] == nil {
				nodes[tt.runtime] = startNode(whole, tt.runtime)
			}
			n := nodes[tt.runtime]
			given, want := fmt.Sprintf(label, tt.given), fmt.Sprintf(label, tt.want)
			if tt.given == "" {
				given, want = "", "system_u:system_r:"+kernelType+":s0" // containerd's
			}
			id := fmt.Sprintf("c%d", i)
			if got := n.labels(t, id, given); got != want+"\n"+want {
				t.Errorf("got %q, want %q twice", got, want)
			}
			if tt.given != "" {
				n.fileLabels(t, id)
			}
			warned := 0
			for _, line := range n.Said(t, 0) {
				if strings.Contains(line, "id="+id+" ") && strings.Contains(line, "isolate: SELinux denies mounts to "+given+" ") {
					warned++
				}
			}
			if warned != map[bool]int{true: 1}[tt.warns] {
				t.Errorf("warned %d times, want it: %v", warned, tt.warns)
			}
		})
	}
}
