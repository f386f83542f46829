// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
)

// CacheDir holds one JSON file for each runtime path. It is under /run: a
// restart of the host clears it.
const CacheDir = "/run/isolate/.runtime"

// cacheVersion changes with the meaning of the file, so that an upgraded shim
// asks again.
const cacheVersion = 1

// identity tells one content of a file from the next. The change time is part
// of it because a package manager sets the modification time to the one of the
// build.
type identity struct {
	Version int    `json:"version"`
	Path    string `json:"path"`
	Device  uint64 `json:"device"`
	Inode   uint64 `json:"inode"`
	Size    int64  `json:"size"`
	Modify  int64  `json:"modifyNs"`
	Change  int64  `json:"changeNs"`
}

// entry is the content of a cache file.
type entry struct {
	Of     identity `json:"of"`
	Binary Binary   `json:"binary"`
}

func identify(path string) (identity, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return identity{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return identity{
		Version: cacheVersion,
		Path:    path,
		Device:  st.Dev,
		Inode:   st.Ino,
		Size:    st.Size,
		Modify:  st.Mtim.Nano(),
		Change:  st.Ctim.Nano(),
	}, nil
}

// cacheFile is where the answers of one path are kept. The name is a hash: paths
// hold slashes and may be longer than a file name can be.
func cacheFile(dir, path string) string {
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(dir, hex.EncodeToString(sum[:8])+".json")
}

// read returns the cached answers. Whatever is wrong with the file, it is as if
// it were not there, and the next write mends it.
func read(dir string, id identity) (Binary, bool) {
	data, err := os.ReadFile(cacheFile(dir, id.Path))
	if err != nil {
		return Binary{}, false
	}
	var e entry
	if json.Unmarshal(data, &e) != nil || e.Of != id || e.Binary.Path != id.Path {
		return Binary{}, false
	}
	return e.Binary, true
}

// write replaces the cached answers in one step: shims read while others write.
func write(dir string, id identity, b Binary) error {
	// The directory above is shared with what containers' roots pass through.
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	data, err := json.Marshal(entry{Of: id, Binary: b})
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return atomicfile.Write(cacheFile(dir, id.Path), data, 0o600)
}
