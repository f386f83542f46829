// SPDX-License-Identifier: Apache-2.0

package image

import (
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/isolate-shim/isolate/integration/apt"
)

// The images. A base comes before what is built on it.
const (
	// Demo is an ordinary image: a small but real userland that runs as root,
	// has a user 1000, a setuid program and programs with file capabilities.
	Demo Name = "image-demo"
	// DemoSmall is Demo with half of the files and bytes, for machines on which it
	// takes minutes to unpack.
	DemoSmall Name = "image-demo-small"
	// Demo10 and Demo60 are Demo with more layers, that many in all.
	Demo10 Name = "image-demo-10"
	Demo60 Name = "image-demo-60"
	// Client is Demo with what tests of clients run in it: a server, name look-ups,
	// tar. Its name is complete, as containerd's image store wants it.
	Client Name = "image-client"
	// Pause does nothing until it is told to stop, for the sandboxes of pods.
	Pause Name = "image-pause"
)

// PauseReference is what Pause is called.
const PauseReference = "docker.io/local/pause:1"

// Default lists the images that the tests need.
var Default = []Name{Demo, Demo10, Demo60, Client, Pause, Inner, Docker20, Docker26, Systemd252, Systemd257, Busybox, Nginx}

var list = slices.Concat(ordinary, nested, cri, deploy)

// demoPackages and demoFiles are the layers of Demo: a userland, and what has
// owners, modes and capabilities.
var demoPackages = []string{
	"bash", "coreutils", "procps", "util-linux", "mount", "passwd",
	"libcap2-bin", "acl", "attr", "iproute2", "iputils-ping",
}

var demoFiles = Layer{
	Files: map[string]string{
		"/srv/data/readme":   "a file of the second layer\n",
		"/usr/local/bin/ids": "#!/bin/sh\ncat /proc/self/uid_map\nid\n",
	},
	Run: [][]string{
		{"useradd", "--create-home", "--uid", "1000", "--user-group", "--shell", "/bin/bash", "user"},
		{"sh", "-c", "echo mine > /home/user/file && chown user:user /home/user/file && chmod 600 /home/user/file"},
		{"sh", "-c", "mkdir /srv/shared && chown 33:1000 /srv/shared && chmod 2775 /srv/shared"},
		{"sh", "-c", "cp /usr/bin/id /usr/local/bin/suid-id && chmod 4755 /usr/local/bin/suid-id"},
		{"sh", "-c", "cp /usr/bin/sleep /usr/local/bin/capable && setcap cap_net_bind_service,cap_net_raw+ep /usr/local/bin/capable"},
		{"sh", "-c", "ln /srv/data/readme /srv/data/hardlink && rm /etc/issue.net"},
	},
}

var demoConfig = &ocispec.ImageConfig{
	Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	Cmd: []string{"bash"},
}

var ordinary = []Definition{
	{
		Name: Demo, Reference: "local/debian:demo", Suite: apt.Bookworm,
		Layers: []Layer{
			{Packages: demoPackages},
			demoFiles,
		},
		Config: demoConfig,
	},
	{
		Name: DemoSmall, Reference: "local/debian:demo-small", Suite: apt.Bookworm,
		Layers: []Layer{
			{Packages: demoPackages, Run: [][]string{{"sh", "-c", "rm -r /usr/share/perl* /usr/lib/*/perl* /usr/lib/*/libperl* /usr/bin/perl* /usr/lib/*/gconv /usr/lib/apt /usr/lib/*/libapt* /var/lib/dpkg /usr/share/common-licenses /usr/share/bash-completion"}}},
			demoFiles,
		},
		Config: demoConfig,
	},
	{Name: Demo10, Reference: "local/debian:demo-10", Base: Demo, Tiny: 8},
	{Name: Demo60, Reference: "local/debian:demo-60", Base: Demo, Tiny: 58},
	{
		Name: Client, Reference: "docker.io/local/client:1", Base: Demo,
		Layers: []Layer{{
			Packages: []string{"busybox-static"},
			Files:    map[string]string{"/www/index.html": "served by the client image\n"},
		}},
	},
	{
		Name: Pause, Reference: PauseReference, Suite: apt.Bookworm,
		Layers: []Layer{{Unpacked: []string{"busybox-static"}}},
		// A signal ends the wait, but not process 1 unless it asked for it.
		Config: &ocispec.ImageConfig{Entrypoint: []string{"/bin/busybox", "sh", "-c", "trap 'exit 0' TERM INT; /bin/busybox sleep 2147483647 & wait"}},
	},
}
