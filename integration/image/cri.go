// SPDX-License-Identifier: Apache-2.0

package image

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/isolate-shim/isolate/integration/apt"
)

// The images that critest works with, made of Debian's packages: it names
// others, but only looks at what they do.
const (
	// Busybox has its programs as links to one file that is linked dynamically:
	// such a program is found by its path and no other way, so that it can be
	// masked. pgrep and ipcs come from elsewhere.
	Busybox Name = "image-busybox"
	// Nginx is a web server. Its other configuration, /etc/nginx/hostnet.conf,
	// listens on port 12003. A copy of id is setuid.
	Nginx Name = "image-nginx"
)

var cri = []Definition{
	{
		Name: Busybox, Reference: "docker.io/local/busybox:1", Suite: apt.Bookworm,
		Layers: []Layer{{
			Unpacked: []string{"busybox", "procps", "util-linux"},
			Files: map[string]string{
				"/etc/passwd": "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/:/bin/sh\ndefault-user:x:1000:1000::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
				"/etc/group":  "root:x:0:\nwww-data:x:33:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n",
			},
			Run: [][]string{
				{"/bin/busybox", "sh", "-ec", `
					b=/bin/busybox
					$b mkdir /keep /var/run
					$b cp /usr/bin/pgrep /usr/bin/ipcs /bin/busybox /keep
					$b chmod 1777 /tmp
					/keep/busybox rm -rf /bin /sbin /usr/bin /usr/sbin /usr/share /usr/games /var/lib /var/cache /usr/lib/*/perl* /usr/lib/*/libperl* /usr/lib/*/gconv
					/keep/busybox mv /keep /bin
					$b --install /bin`},
			},
		}},
		Config: &ocispec.ImageConfig{Env: path, Cmd: []string{"sh"}},
	},
	{
		Name: Nginx, Reference: "docker.io/local/nginx:1", Suite: apt.Bookworm,
		Layers: []Layer{{
			Packages: []string{"nginx-light", "busybox"},
			Files: map[string]string{
				"/etc/nginx/nginx.conf":   nginxConf("80"),
				"/etc/nginx/hostnet.conf": nginxConf("12003"),
			},
			Run: [][]string{
				{"sh", "-c", "cp /usr/bin/id /usr/local/bin/suid-id && chmod 4755 /usr/local/bin/suid-id"},
				// GNU's remarks on a file that is not text, which a command line is not.
				{"ln", "-s", "/bin/busybox", "/usr/local/bin/grep"},
			},
		}},
		Config: &ocispec.ImageConfig{Env: path, Cmd: []string{"nginx"}},
	},
}

func nginxConf(port string) string {
	return "daemon off;\nuser www-data;\npid /run/nginx.pid;\nerror_log /dev/stderr;\nevents { }\n" +
		"http {\n\taccess_log off;\n\tserver {\n\t\tlisten " + port + ";\n\t\troot /usr/share/nginx/html;\n\t}\n}\n"
}
