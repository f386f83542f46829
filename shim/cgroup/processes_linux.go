// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Processes lists the processes of a group and of all below it, sorted. What ends
// meanwhile is left out, and so are groups whose path is too long for the kernel,
// which a container can make.
func Processes(dir string) ([]int, error) {
	var all []int
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() != "cgroup.procs" {
			return nil
		}
		var content []byte
		if err == nil {
			content, err = os.ReadFile(path)
		}
		switch {
		case err == nil:
		case errors.Is(err, unix.EOPNOTSUPP): // threaded: they are in the group above
			return nil
		case path != dir && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENAMETOOLONG)):
			return nil
		default:
			return err
		}
		for line := range strings.FieldsSeq(string(content)) {
			pid, err := strconv.Atoi(line)
			if err != nil {
				return fmt.Errorf("parse cgroup.procs: %w", err)
			}
			all = append(all, pid)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup: %w", err)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}
