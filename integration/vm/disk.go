// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/cache"
)

// scratchSize is the size of the scratch disk in bytes. It is a sparse file.
const scratchSize = 20 << 30

// features are those that the oldest kernel knows, without a journal or
// checksums: the disk does not outlive the machine.
const features = "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,huge_file,large_file,sparse_super"

// scratch makes a disk with an ext4 file system. The file never has a name, so
// that it goes away with the last process that has it open.
func scratch(ctx context.Context) (*os.File, error) {
	root, err := cache.Root()
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(root, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make scratch disk: %w", err)
	}
	if err := file.Truncate(scratchSize); err != nil {
		file.Close()
		return nil, fmt.Errorf("make scratch disk: %w", err)
	}
	program, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		program = "/usr/sbin/mkfs.ext4"
	}
	command := exec.CommandContext(ctx, program, "-q", "-F", "-O", features, "-E", "lazy_itable_init=1,nodiscard", "/proc/self/fd/3")
	command.ExtraFiles = []*os.File{file}
	if out, err := command.CombinedOutput(); err != nil {
		file.Close()
		return nil, fmt.Errorf("make scratch disk: mkfs.ext4: %w\n%s", err, out)
	}
	return file, nil
}

// memoryFile is a file in memory with the given content.
func memoryFile(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make file in memory: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if _, err := file.Write(content); err != nil {
		file.Close()
		return nil, fmt.Errorf("write file in memory: %w", err)
	}
	return file, nil
}
