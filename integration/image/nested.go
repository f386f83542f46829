// SPDX-License-Identifier: Apache-2.0

package image

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/isolate-shim/isolate/integration/apt"
)

// The images in which other containers run.
const (
	// Docker20 and Docker26 hold Docker in that version, containerd, podman,
	// buildah and what they need, of Debian bookworm and trixie. There is
	// content at /var/lib/docker already.
	Docker20 Name = "image-docker-20"
	Docker26 Name = "image-docker-26"
	// Systemd252 and Systemd257 are these with systemd in that version, sshd,
	// and Docker and containerd as units: like a virtual machine, or like the
	// node images that run Kubernetes in containers. The second has programs that look
	// at the machine too.
	Systemd252 Name = "image-systemd-252"
	Systemd257 Name = "image-systemd-257"
	// SystemdSlim is systemd and nothing else, for machines on which an image with
	// more takes minutes to unpack.
	SystemdSlim Name = "image-systemd-slim"
	// Inner is a small image to be run inside of these.
	Inner Name = "image-inner"
	// Many is Inner with 30,000 files more.
	Many Name = "image-many"
)

var path = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

var nested = []Definition{
	{
		Name: Inner, Reference: "docker.io/local/inner:1", Suite: apt.Bookworm,
		Layers: []Layer{
			{
				Unpacked: []string{"busybox-static"},
				Files: map[string]string{
					"/etc/passwd":     "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n",
					"/etc/group":      "root:x:0:\nuser:x:1000:\n",
					"/www/index.html": "served by the inner image\n",
				},
				Run: [][]string{{"/bin/busybox", "--install", "-s"}},
			},
			// A second layer replaces and removes, so that overlays have whiteouts.
			{
				Files: map[string]string{"/layer": "second\n"},
				Run:   [][]string{{"/bin/rm", "-r", "/usr/share"}},
			},
		},
		Config: &ocispec.ImageConfig{Env: path, Cmd: []string{"sh"}},
	},
	{Name: Many, Reference: "docker.io/local/many:1", Base: Inner, Many: 30000},
	{
		Name: SystemdSlim, Reference: "docker.io/local/systemd:slim", Suite: apt.Trixie,
		Layers: []Layer{{
			Unpacked: []string{"systemd", "dbus", "busybox-static"},
			Files: map[string]string{
				"/etc/passwd": "root:x:0:0::/root:/bin/sh\n", "/etc/group": "root:x:0:\n",
				"/etc/machine-id": "736c696d0000000000000000736c696d\n", // not a first boot
			},
			Run: [][]string{
				{"/bin/busybox", "ln", "-s", "busybox", "/bin/sh"},
				{"/bin/busybox", "ln", "-s", "/usr/lib/systemd/systemd", "/sbin/init"},
				{"/bin/sh", "-c", "busybox rm -r /usr/lib/*/gconv"},
				// What these need is not installed, or takes long.
				{"/bin/busybox", "ln", "-s", "/dev/null", "/etc/systemd/system/ldconfig.service"},
				{"/bin/busybox", "ln", "-s", "/dev/null", "/etc/systemd/system/systemd-hwdb-update.service"},
				{"/bin/busybox", "ln", "-s", "/dev/null", "/etc/systemd/system/systemd-journal-catalog-update.service"},
			},
		}},
		Config: &ocispec.ImageConfig{Env: path, Cmd: []string{"/sbin/init"}},
	},
	{
		Name: Docker20, Reference: "docker.io/local/docker:20.10", Suite: apt.Bookworm,
		Layers: []Layer{
			{Packages: append([]string{"docker.io", "slirp4netns"}, nesting...)},
			{
				Files: map[string]string{
					"/etc/resolv.conf": resolver, "/var/lib/docker/of-the-image/note": "of the image\n",
					// Without a file, this version takes vfs for users whose home is on an
					// overlay.
					"/etc/containers/storage.conf": "[storage]\ndriver = \"overlay\"\nrunroot = \"/run/containers/storage\"\ngraphroot = \"/var/lib/containers/storage\"\n",
				},
				Run: [][]string{
					{"useradd", "--create-home", "--uid", "1000", "--user-group", "--shell", "/bin/bash", "user"},
					{"sh", "-c", "cp /usr/bin/id /var/lib/docker/of-the-image/id && chmod 4755 /var/lib/docker/of-the-image/id"},
					{"sh", "-c", "ln -s note /var/lib/docker/of-the-image/link && chown -h 1000:33 /var/lib/docker/of-the-image/link"},
					{"sh", "-c", subids},
				},
			},
		},
		Config: &ocispec.ImageConfig{Env: path, Cmd: []string{"bash"}},
	},
	{
		Name: Docker26, Reference: "docker.io/local/docker:26.1", Suite: apt.Trixie,
		Layers: []Layer{
			{Packages: append([]string{"docker.io", "docker-cli", "docker-buildx", "passt", "nftables"}, nesting...)},
			{
				Files: map[string]string{"/etc/resolv.conf": resolver},
				Run: [][]string{
					{"useradd", "--create-home", "--uid", "1000", "--user-group", "--shell", "/bin/bash", "user"},
					{"sh", "-c", subids},
				},
			},
		},
		Config: &ocispec.ImageConfig{Env: path, Cmd: []string{"bash"}},
	},
	{
		Name: Systemd252, Reference: "docker.io/local/systemd:252", Base: Docker20,
		Layers: []Layer{{Packages: system, Files: entrypoint}},
		Config: &ocispec.ImageConfig{Env: path, Cmd: []string{"/sbin/init"}},
	},
	{
		Name: Systemd257, Reference: "docker.io/local/systemd:257", Base: Docker26,
		Layers: []Layer{{Packages: append([]string{"python3-psutil", "nodejs", "htop"}, system...), Files: entrypoint}},
		Config: &ocispec.ImageConfig{Env: path, Cmd: []string{"/sbin/init"}},
	},
}

// nesting is what the images have in common.
var nesting = []string{
	"containerd", "runc", "crun", "podman", "buildah", "netavark", "aardvark-dns", "fuse-overlayfs", "fuse3", "uidmap", "bubblewrap",
	"iptables", "iproute2", "iputils-ping", "procps", "psmisc", "util-linux", "mount", "libcap2-bin", "busybox-static", "ca-certificates", "openssh-client",
}

// system is what a server has, down to what is of no use in a container.
var system = []string{
	"systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo", "cron", "udev", "kmod", "polkitd",
	"systemd-resolved", "systemd-timesyncd", "rsyslog",
}

// entrypoint is a script that ends in systemd, as that of node images.
var entrypoint = map[string]string{
	"/usr/local/bin/entrypoint": "#!/bin/bash\nset -e\ntouch /run/entered\nexec \"$@\"\n",
}

// resolver is what clients put there that know of networks.
const resolver = "nameserver 192.0.2.53\n"

// subids are ranges for rootless podman that fit into the ids of a container.
const subids = "echo user:2000:40000 > /etc/subuid && cp /etc/subuid /etc/subgid"
