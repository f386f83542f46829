// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"os"
	"slices"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// feature is something that people do with Docker.
type feature struct {
	name string
	test func(*testing.T, *daemon)
}

// core is tried in every combination.
var core = []feature{
	{"identity", identity},
	{"streams", streams},
	{"lifecycle", lifecycle},
	{"restart policy", restartPolicy},
	{"commit", commit},
	{"diff", diff},
	{"copy", copyFiles},
	{"volumes", volumes},
	{"ports", ports},
	{"limits", limits},
	{"shim killed", shimKilled},
}

// processes are those features that depend on containerd.
var processes = []feature{
	{"identity", identity},
	{"streams", streams},
	{"lifecycle", lifecycle},
	{"limits", limits},
	{"shim killed", shimKilled},
}

// full is the rest, which depends less on how Docker is set up.
var full = append([]feature{
	{"pause", pause},
	{"signals", signals},
	{"health", health},
	{"read-only volumes", readOnlyVolumes},
	{"mounts of read-only volumes", mountsOfReadOnlyVolumes},
	{"volume on /dev", volumeOnDev},
	{"propagation", propagation},
	{"user networks", userNetworks},
	{"joined namespaces", joinedNamespaces},
	{"host namespaces", hostNamespaces},
	{"process options", processOptions},
	{"security options", securityOptions},
	{"privileged", privileged},
	{"devices", devices},
	{"mistakes", mistakes},
	{"dockerd killed", dockerdKilled},
	{"does not end", doesNotEnd},
}, core...)

func (d *daemon) features(t *testing.T, list []feature) {
	before := d.rehearse(t)
	for _, f := range list {
		t.Run(f.name, func(t *testing.T) { f.test(t, d) })
		rig.MustMatch(t, before)
	}
}

// TestDocker26 is Docker as distributions ship it: dockerd, and containerd as a
// service of its own. The runtime is chosen by its name, and nothing is configured.
func TestDocker26(t *testing.T) {
	d := startDaemon(t, combination{
		config: rig.DockerConfig{
			Dockerd: peer.Docker26, Config: isolated(peer.Containerd24, peer.Runc15), Apart: true,
			Settings: map[string]any{"storage-driver": "overlay2", "live-restore": true, "features": map[string]any{"cdi": true}},
		},
		flags: []string{"--runtime", runtimeName}, driver: "overlay2",
	}, image.Client)
	d.features(t, append([]feature{{"mistakes", mistakes}, {"mounts of read-only volumes", mountsOfReadOnlyVolumes}, {"volume on /dev", volumeOnDev}, {"does not end", doesNotEnd}, {"GPU", gpu}}, core...))
}

// TestDocker29 is the newest Docker, which keeps images in containerd's store and
// starts containerd itself. isolate is the default runtime, also for builds.
func TestDocker29(t *testing.T) {
	d := startDaemon(t, combination{
		config: rig.DockerConfig{
			Dockerd: peer.Docker29, Config: isolated(peer.Containerd24, peer.Runc15),
			Settings: alias(runtimeName, map[string]any{"default-runtime": "isolate", "live-restore": true}),
		},
		driver: "overlayfs",
	}, image.Client)
	d.features(t, append([]feature{{"build", build}, {"export", export}}, full...))
}

// TestStorage tries the other ways in which dockerd stores containers, the other
// OCI runtime and the other containerd, with the runtime chosen by an alias.
func TestStorage(t *testing.T) {
	for _, c := range []struct {
		combination
		features []feature
	}{
		{features: append([]feature{{"joined pids", joinedPIDs}}, core...), combination: combination{
			name: "overlay2 of Docker 29 and crun",
			config: rig.DockerConfig{
				Dockerd: peer.Docker29, Config: isolated(peer.Containerd24, peer.Crun121),
				Settings: alias(shimPath(t), map[string]any{"storage-driver": "overlay2", "features": map[string]any{"containerd-snapshotter": false}}),
			},
			flags: []string{"--runtime", "isolate"}, driver: "overlay2",
		}},
		{features: processes, combination: combination{
			name: "containerd 1.7",
			config: rig.DockerConfig{
				Dockerd: peer.Docker26, Config: isolated(peer.Containerd17, peer.Runc15),
				Settings: alias(runtimeName, map[string]any{"storage-driver": "overlay2"}),
			},
			flags: []string{"--runtime", "isolate"}, driver: "overlay2",
		}},
	} {
		t.Run(c.name, func(t *testing.T) { startDaemon(t, c.combination, image.Client).features(t, c.features) })
	}
}

// TestPlainDirectories is for storage drivers that mount nothing. dockerd then sees
// what is on disk at any time, so that everything works on running containers.
func TestPlainDirectories(t *testing.T) {
	d := startDaemon(t, combination{
		config: rig.DockerConfig{
			Dockerd: peer.Docker29, Config: isolated(peer.Containerd24, peer.Runc15),
			Settings: alias(runtimeName, map[string]any{"storage-driver": "vfs", "features": map[string]any{"containerd-snapshotter": false}}),
		},
		flags: []string{"--runtime", "isolate"}, driver: "vfs",
	}, image.Inner)
	before := d.rehearse(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/in", []byte("inwards"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := d.start(t, nil)
	first := d.hostID(t, c)
	d.in(t, c, "echo text >/file && chown 1000:33 /file && rm /layer")
	d.docker(t, "cp", c+":/file", dir+"/out")
	wantFile(t, dir+"/out", "text\n", 0, 0)
	d.docker(t, "cp", dir+"/in", c+":/in")
	d.expect(t, "inwards 0:0", c, "echo $(cat /in) $(stat -c %u:%g /in)")
	if got := d.changes(t, c); !slices.Equal(got, []string{"A /file", "A /in", "D /layer"}) {
		t.Errorf("diff of a running container: %q", got)
	}
	d.docker(t, "export", "--output", dir+"/archive", c)
	if h := entry(t, dir+"/archive", "file"); h.Uid != 1000 || h.Gid != 33 {
		t.Errorf("exported with owner %d:%d", h.Uid, h.Gid)
	}
	d.docker(t, "commit", c, "docker.io/local/committed:1")
	if got := d.docker(t, "run", "--rm", "--runtime", "runc", "docker.io/local/committed:1", "stat", "-c", "%u:%g", "/file"); got != "1000:33" {
		t.Errorf("committed with owner %s", got)
	}
	d.docker(t, "restart", "-t", "0", c)
	if d.hostID(t, c) == first {
		t.Error("same host ids as before")
	}
	d.expect(t, "text 1000:33", c, "echo $(cat /file) $(stat -c %u:%g /file)")
	d.docker(t, "rm", "--force", c)
	rig.MustMatch(t, before)
}
