// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bufio"
	"os"
	"slices"
	"strings"
)

// distro is what a distribution calls itself: ID of os-release(5), and then those that
// it is like.
type distro []string

// installers are how packages are installed. Those that isolate needs have the same
// name everywhere.
var installers = map[string]string{
	"debian": "apt-get install", "ubuntu": "apt-get install", "fedora": "dnf install", "rhel": "dnf install",
	"arch": "pacman -S", "alpine": "apk add", "suse": "zypper install", "opensuse": "zypper install",
}

// install is the command that installs a package.
func (d distro) install(name string) string {
	for _, id := range d {
		if command, ok := installers[id]; ok {
			return command + " " + name
		}
	}
	return "install the package " + name
}

// thisDistro reads os-release(5).
func thisDistro() distro {
	for _, file := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if text, err := os.ReadFile(file); err == nil {
			return parseDistro(string(text))
		}
	}
	return nil
}

func parseDistro(text string) distro {
	var id, like []string
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), "=")
		words := strings.Fields(strings.Trim(value, `"'`))
		switch name {
		case "ID":
			id = words
		case "ID_LIKE":
			like = words
		}
	}
	return slices.Concat(id, like)
}
