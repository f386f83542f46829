// SPDX-License-Identifier: Apache-2.0

package plan

// HardLimits are the hard resource limits above which a runtime on this host cannot go
// (setrlimit(2)). nrOpen is the sysctl fs.nr_open, which bounds open files. own are those
// of this process, by the names of the OCI runtime spec; nil with CAP_SYS_RESOURCE, for
// which they are no bound.
func HardLimits(nrOpen uint64, own map[string]uint64) map[string]uint64 {
	limits := map[string]uint64{"RLIMIT_NOFILE": nrOpen}
	for name, hard := range own {
		if have, ok := limits[name]; !ok || hard < have {
			limits[name] = hard
		}
	}
	return limits
}
