// SPDX-License-Identifier: Apache-2.0

package version

import (
	"runtime/debug"
	"testing"
)

func TestSettle(t *testing.T) {
	built := func(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: version}, Settings: settings}
	}
	commit := debug.BuildSetting{Key: "vcs.revision", Value: "abc"}
	for _, c := range []struct {
		name, version, revision string
		info                    *debug.BuildInfo
		want                    string
	}{
		{"by make", "v1.2.3", "def", built("v0.0.1", commit), "v1.2.3 def"},
		{"by go install of a release", "", "", built("v1.2.3"), "v1.2.3 unknown"},
		{"by go build in a clone", "", "", built("v1.2.4-0.20260101000000-abc+dirty", commit), "v1.2.4-0.20260101000000-abc+dirty abc"},
		{"by go test", "", "", built("(devel)"), "unreleased unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			version, revision := settle(c.version, c.revision, c.info)
			if got := version + " " + revision; got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
