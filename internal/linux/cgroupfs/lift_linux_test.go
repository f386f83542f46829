// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLifted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file, content string
		want          []string
	}{
		{"io.max", "8:16 rbps=2097152 wbps=max riops=max wiops=120\n254:0 rbps=1 wbps=1 riops=max wiops=max\n", []string{
			"8:16 rbps=max wbps=max riops=max wiops=max", "254:0 rbps=max wbps=max riops=max wiops=max",
		}},
		{"io.max", "", nil},
		{"cpu.max", "1000 1000000\n", []string{"max"}},
		{"cpu.max", "max 100000\n", nil},
		{"blkio.throttle.write_iops_device", "254:0 1\n7:0 3\n", []string{"254:0 0", "7:0 0"}},
		{"cpu.cfs_quota_us", "1000\n", []string{"-1"}},
		{"cpu.cfs_quota_us", "-1\n", nil},
	} {
		i := slices.IndexFunc(limits, func(l limit) bool { return l.file == tt.file })
		if got := limits[i].lifted(tt.content); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q becomes %q, want %q", tt.file, tt.content, got, tt.want)
		}
	}
}

// TestLiftLeavesLimitsOfOthers lifts what a container has set below its group, and
// neither its group's own limit nor that of somebody else's below.
func TestLiftLeavesLimitsOfOthers(t *testing.T) {
	t.Parallel()
	const ours = 1700000000
	each(t, "cpu", func(t *testing.T, dir string) {
		file, limit := "cpu.cfs_quota_us", "20000"
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			file, limit = "cpu.max", "20000 100000"
		}
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			if err := Lift(t.Context(), dir, func(uint32) bool { return true }); err != nil {
				t.Error(err) // a hierarchy without the controller
			}
			return
		}
		groups := map[string]bool{".": false, "ours": true, "ours/below": true, "theirs": false}
		for _, name := range []string{".", "ours", "ours/below", "theirs"} {
			group := filepath.Join(dir, name)
			if name != "." {
				mkdir(t, group)
			}
			if strings.HasPrefix(name, "ours") {
				if err := os.Chown(group, ours, ours); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(group, file), []byte(limit), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := Lift(t.Context(), dir, func(uid uint32) bool { return uid == ours }); err != nil {
			t.Error(err)
		}
		for name, want := range groups {
			got, err := os.ReadFile(filepath.Join(dir, name, file))
			if err != nil || (strings.TrimSpace(string(got)) != limit) != want {
				t.Errorf("%s of %s is %q, %v", file, name, got, err)
			}
		}
	})
}
