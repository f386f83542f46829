// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Docker is a dockerd.
type Docker struct {
	Process // a zero PID if it does not run

	File       string // its configuration
	Containerd string // address; "" for one that dockerd finds or starts itself
	socket     string

	// DockerInfo is its answer. If it does not run, only the runtimes of its
	// configuration are set.
	DockerInfo
}

// DockerInfo are the parts of dockerd's own report (docker info) that matter.
type DockerInfo struct {
	Version  string                   `json:"ServerVersion"`
	Root     string                   `json:"DockerRootDir"` // where it keeps images
	Storage  string                   `json:"Driver"`
	Cgroups  string                   `json:"CgroupDriver"`
	Default  string                   `json:"DefaultRuntime"` // runtime of containers that name none
	Runtimes map[string]DockerRuntime `json:"Runtimes"`
	Security []string                 `json:"SecurityOptions"`
}

// DockerRuntime is an entry of runtimes.
type DockerRuntime struct {
	Path    string         `json:"path"`
	Type    string         `json:"runtimeType"`
	Options map[string]any `json:"options"`
}

// IsDocker tells whether the program of a process says that it is dockerd.
func IsDocker(ctx context.Context, p Process) bool {
	printed, err := p.Run(ctx, "--version")
	return err == nil && strings.HasPrefix(string(printed), "Docker version ")
}

// InspectDocker reads the configuration of a dockerd, and asks it if it runs.
func InspectDocker(ctx context.Context, p Process) (Docker, error) {
	d := Docker{Process: p, File: flagValue(p.Args, "/etc/docker/daemon.json", "--config-file")}
	var file struct {
		Containerd string                   `json:"containerd"`
		Hosts      []string                 `json:"hosts"`
		Runtimes   map[string]DockerRuntime `json:"runtimes"`
	}
	data, err := os.ReadFile(d.File)
	if err == nil {
		err = json.Unmarshal(data, &file)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, fmt.Errorf("%s: %w", d.File, err)
	}
	d.Containerd = flagValue(p.Args, file.Containerd, "--containerd")
	d.socket = "/var/run/docker.sock"
	for _, address := range append(file.Hosts, flagValues(p.Args, "-H", "--host")...) {
		if path, ok := strings.CutPrefix(address, "unix://"); ok {
			d.socket = path
		}
	}
	if p.PID == 0 {
		d.Runtimes = file.Runtimes
		return d, nil
	}
	err = d.ask(ctx)
	for name := range d.Runtimes {
		if r, ok := file.Runtimes[name]; ok { // it answers neither type nor options
			d.Runtimes[name] = r
		}
	}
	return d, err
}

// ask asks dockerd itself.
func (d *Docker) ask(ctx context.Context) error { return d.get(ctx, "/info", &d.DockerInfo) }

// get asks for a resource of dockerd's interface, which is JSON of at most 16 MiB.
func (d Docker) get(ctx context.Context, resource string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+resource, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask dockerd on %s: %w", d.socket, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask dockerd on %s: %s", d.socket, response.Status)
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, 16<<20)).Decode(answer); err != nil {
		return fmt.Errorf("ask dockerd on %s: %w", d.socket, err)
	}
	return nil
}

// MapsIDs tells whether it maps ids itself (userns-remap).
func (d Docker) MapsIDs() bool {
	for _, option := range d.Security {
		if option == "name=userns" {
			return true
		}
	}
	return false
}
