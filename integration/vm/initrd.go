// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// entry is a file of an initramfs. The fields are those of struct stat.
type entry struct {
	name    string
	mode    uint32
	major   uint32
	minor   uint32
	content []byte
}

// File types of stat(2).
const (
	typeDirectory = 0o040000
	typeCharacter = 0o020000
	typeRegular   = 0o100000
)

// initrd is the file system that the guest starts with: init, the modules it
// needs, and the console, which has to be there before init mounts anything. It
// is made for each run, as that takes less time than looking it up.
func initrd(program string, modules string) ([]byte, error) {
	init, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("read guest program: %w", err)
	}
	entries := []entry{
		{name: "dev", mode: typeDirectory | 0o755},
		{name: "dev/console", mode: typeCharacter | 0o600, major: 5, minor: 1},
		{name: "init", mode: typeRegular | 0o755, content: init},
		{name: "modules", mode: typeDirectory | 0o755},
	}
	dep, err := os.ReadFile(filepath.Join(modules, "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("read module dependencies: %w", err)
	}
	order, err := loadOrder(string(dep), bootModules)
	if err != nil {
		return nil, err
	}
	for i, file := range order {
		content, err := os.ReadFile(filepath.Join(modules, file))
		if err != nil {
			return nil, fmt.Errorf("read module: %w", err)
		}
		entries = append(entries, entry{
			// init loads them in the order of their names.
			name: fmt.Sprintf("modules/%02d-%s", i, filepath.Base(file)), mode: typeRegular | 0o644, content: content,
		})
	}
	return archive(entries), nil
}

// archive is a cpio archive in the "new ASCII format" of the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst.
func archive(entries []entry) []byte {
	var out bytes.Buffer
	for i, e := range append(entries, entry{name: "TRAILER!!!"}) {
		fmt.Fprintf(&out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
			i+1, e.mode, 0, 0, 1, 0, len(e.content), 0, 0, e.major, e.minor, len(e.name)+1, 0)
		out.WriteString(e.name)
		out.WriteByte(0)
		pad(&out)
		out.Write(e.content)
		pad(&out)
	}
	return out.Bytes()
}

func pad(out *bytes.Buffer) {
	for out.Len()%4 != 0 {
		out.WriteByte(0)
	}
}
