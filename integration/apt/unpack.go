// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Unpack extracts packages over a directory tree, with owners, modes and file
// capabilities but without running their maintainer scripts. The tree gets the
// merged /usr that Debian has, so that loaders and libraries are in one place.
func Unpack(ctx context.Context, root string, debs ...string) error {
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		link := filepath.Join(root, name)
		if _, err := os.Lstat(link); err == nil {
			continue
		}
		if err := errors.Join(os.MkdirAll(filepath.Join(root, "usr", name), 0o755), os.Symlink("usr/"+name, link)); err != nil {
			return fmt.Errorf("merge /usr: %w", err)
		}
	}
	for _, deb := range debs {
		if err := unpack(ctx, root, deb); err != nil {
			return fmt.Errorf("unpack %q: %w", filepath.Base(deb), err)
		}
	}
	return nil
}

// unpack does what dpkg -x does, but keeps the links of the merged /usr.
func unpack(ctx context.Context, root, deb string) error {
	source := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	target := exec.CommandContext(ctx, "tar", "-x", "-p", "-C", root, "--numeric-owner", "--keep-directory-symlink")
	stream, err := source.StdoutPipe()
	if err != nil {
		return err
	}
	target.Stdin = stream
	target.Stderr, source.Stderr = os.Stderr, os.Stderr
	if err := source.Start(); err != nil {
		return err
	}
	// Closing the pipe lets dpkg-deb end when tar has given up.
	err = target.Run()
	return errors.Join(err, stream.Close(), source.Wait())
}
