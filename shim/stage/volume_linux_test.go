// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/spec"
)

// TestStagedVolume stages clones with the flags of the spec.
func TestStagedVolume(t *testing.T) {
	t.Parallel()
	s, k, dir := pretend(t)
	source := directory(t, dir, "data")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, v := range []spec.Volume{
		{Destination: "/d", Source: source, Mapping: &mapping, Recursive: true, Flags: []string{"rro", "rnosuid"}},
		{Destination: "/f", Source: file},
	} {
		path, warnings, err := s.Volume(t.Context(), v, true)
		if err != nil || len(warnings) > 0 || path != filepath.Join(dir, "stage", fmt.Sprint(i)) {
			t.Fatalf("%q, %q, %v", path, warnings, err)
		}
		if info, err := os.Stat(path); err != nil || info.IsDir() != (i == 0) {
			t.Errorf("mount point of %s: %v, %v", v.Destination, info, err)
		}
	}
	wantLog(t, k, fmt.Sprintf("userns %v", mapping),
		fmt.Sprintf("clone data %#x", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID),
		"mount tmpfs stage mode=711,size=1m", fmt.Sprintf("change stage %#x", unix.MS_PRIVATE), "attach 0", "clone file 0x0", "attach 1")
	if flags, err := s.Flags(); err != nil || len(flags) > 0 { // nothing is mounted
		t.Errorf("%v, %v", flags, err)
	}
	for _, fail := range []string{"userns", "clone", "attach"} {
		k.Fail = fail
		other := idmap.Contiguous(300000, 65536)
		if _, _, err := s.Volume(t.Context(), spec.Volume{Destination: "/d", Source: source, Mapping: &other}, false); !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "volume /d") {
			t.Errorf("%s: %v", fail, err)
		}
	}
	if _, _, err := s.Volume(t.Context(), spec.Volume{Destination: "/d", Source: dir + "/absent"}, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no source: %v", err)
	}
	if _, _, err := s.Volume(t.Context(), spec.Volume{Destination: "/sys", Kernel: "sysfs", Source: dir + "/absent"}, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no namespace: %v", err)
	}
}

// TestUnmappedVolume is a warning, or an error if the administrator says so. The
// kernel's own file systems do not count.
func TestUnmappedVolume(t *testing.T) {
	t.Parallel()
	nfs := mount.Unmapped{FSType: "nfs", Err: &mount.NotIDMappableError{Path: "/n", FSType: "nfs", Kernel: "6.1"}}
	for _, c := range []struct {
		name     string
		unmapped []mount.Unmapped
		require  bool
		warning  string
		refused  bool
	}{
		{name: "kernel's", unmapped: []mount.Unmapped{{FSType: "proc", Err: errors.New("x")}}, require: true},
		{name: "warning", unmapped: []mount.Unmapped{nfs}, warning: "show as nobody"},
		{name: "more of them", unmapped: []mount.Unmapped{nfs, {FSType: "sysfs"}, nfs, nfs}, warning: "nor can 2 other mounts in it"},
		{name: "required", unmapped: []mount.Unmapped{nfs}, require: true, refused: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, k, dir := pretend(t)
			k.Unmapped = c.unmapped
			path, warnings, err := s.Volume(t.Context(), spec.Volume{Destination: "/d", Source: directory(t, dir, "data"), Mapping: &mapping}, c.require)
			switch {
			case c.refused:
				if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "volumes.require_idmap") || path != "" || len(k.Mounted()) > 0 {
					t.Errorf("%q, %v", path, err)
				}
			case err != nil || len(warnings) > 1 || strings.Contains(strings.Join(warnings, ""), c.warning) != true || (c.warning == "") != (len(warnings) == 0):
				t.Errorf("%q, %v", warnings, err)
			}
		})
	}
}
