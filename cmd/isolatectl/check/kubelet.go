// SPDX-License-Identifier: Apache-2.0

package check

import "strings"

// kubelet is what matters of a kubelet, or of a program that has one in it.
type kubelet struct {
	Found bool
	// Version is as it prints it, "" if it did not.
	Version string
	// Driver is the cgroup driver that it is configured with, "" if that is not
	// known.
	Driver string
}

// kubeletFlags reads a kubelet's command line: its configuration file, and the
// cgroup driver if that is there.
func kubeletFlags(args []string) (file, driver string) {
	for i, arg := range args {
		name, value, inline := strings.Cut(arg, "=")
		if !inline && i+1 < len(args) {
			value = args[i+1]
		}
		switch strings.TrimLeft(name, "-") {
		case "config":
			file = value
		case "cgroup-driver":
			driver = value
		}
	}
	return file, driver
}

// kubeletDriver finds the cgroup driver in a kubelet's configuration, which is
// YAML or JSON with the key at the top; "" if it is not there.
func kubeletDriver(data string) string {
	for line := range strings.Lines(data) {
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.Trim(name, " \t{\"'") != "cgroupDriver" {
			continue
		}
		value, _, _ = strings.Cut(value, "#")
		return strings.Trim(value, " \t\r\n,}\"'")
	}
	return ""
}

// driver is the cgroup driver that the kubelet uses. Since 1.31 it asks a
// containerd of 2.0 or later (KubeletCgroupDriverFromCRI), whose answer is given.
func (k kubelet) driver(containerd int, answer string) string {
	if !k.Found {
		return ""
	}
	if fields := strings.Fields(k.Version); len(fields) > 1 {
		if major, minor, ok := numbers(fields[1]); ok && containerd >= 2 && (major > 1 || minor >= 31) {
			return answer
		}
	}
	return k.Driver
}
