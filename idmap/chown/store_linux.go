// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
	"github.com/isolate-shim/isolate/internal/linux/flock"
)

// Dir is where the state of all snapshots is. It survives a reboot, as they do.
const Dir = "/var/lib/isolate/chown"

// Store keeps the states of snapshots.
type Store struct{ dir string }

// NewStore returns the store in a directory, which need not exist.
func NewStore(dir string) Store { return Store{dir: dir} }

const (
	stateSuffix   = ".json"
	journalSuffix = ".journal"
	lockSuffix    = ".lock"
)

// identity is a directory as its state names it.
type identity struct {
	path  string
	inode uint64
	birth int64
}

func identify(dir string) (identity, error) {
	path, err := filepath.Abs(dir)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return identity{}, fmt.Errorf("find rootfs: %w", err)
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return identity{}, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	id := identity{path: path, inode: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.birth = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return id, nil
}

// base is the path of the snapshot's files in the store, without suffix.
func (s Store) base(path string) string {
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:16]))
}

// Recorded returns the state of the snapshot at a directory; ok is false if its
// ids were never shifted.
func (s Store) Recorded(dir string) (_ State, ok bool, err error) {
	id, err := identify(dir)
	if err != nil {
		return State{}, false, err
	}
	return s.recorded(id)
}

func (s Store) recorded(id identity) (State, bool, error) {
	name := s.base(id.path) + stateSuffix
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, false, nil
	}
	if err != nil {
		return State{}, false, fmt.Errorf("read state of rootfs: %w", err)
	}
	st, err := parseState(data)
	if err != nil {
		return State{}, false, fmt.Errorf("%s: %w", name, err)
	}
	// Another directory of that name, which was made when the one was gone.
	if st.Path != id.path || st.Inode != id.inode || st.Birth != id.birth {
		return State{}, false, nil
	}
	return st, true, nil
}

func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// bootID tells boots of the machine from each other.
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("which boot this is: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// collect removes what the store has of snapshots that are gone. Whatever stands
// in the way leaves it for the next time.
func (s Store) collect() {
	names, err := filepath.Glob(filepath.Join(s.dir, "*"+stateSuffix))
	if err != nil {
		return
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		st, err := parseState(data)
		if err != nil {
			continue
		}
		if _, err := os.Lstat(st.Path); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		s.forget(strings.TrimSuffix(name, stateSuffix))
	}
}

// forget removes the files of a snapshot unless somebody uses them.
func (s Store) forget(base string) {
	for _, suffix := range []string{lockSuffix, usedSuffix} {
		lock, err := tryLock(base+suffix, flock.Exclusive)
		if err != nil {
			return
		}
		defer flock.Close(lock) //nolint:errcheck // nothing was written
	}
	for _, suffix := range []string{stateSuffix, journalSuffix, usedSuffix, lockSuffix} {
		_ = os.Remove(base + suffix)
		_ = atomicfile.Sweep(base + suffix)
	}
}
