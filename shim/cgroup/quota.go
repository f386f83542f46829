// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"strconv"
	"strings"
)

// quota is how much processor time, in microseconds, a group may use in a period. Its
// zero value is no quota.
type quota struct{ time, period uint64 }

// parseQuota reads quota and period, in microseconds. "max" and negative numbers
// mean that there is no quota.
func parseQuota(text string) (quota, bool) {
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return quota{}, false
	}
	limit, err1 := strconv.ParseUint(fields[0], 10, 63)
	period, err2 := strconv.ParseUint(fields[1], 10, 63)
	if err1 != nil || err2 != nil || period == 0 {
		return quota{}, false
	}
	return quota{time: limit, period: period}, true
}

// processors is how many processors a quota is worth.
func (q quota) processors() float64 { return float64(q.time) / float64(q.period) }

// maxPeriod is max_cfs_quota_period of kernel/sched/core.c, in microseconds.
const maxPeriod = 1000000

// shared is the quota that a group gets for a quota above it: the same share of time, since
// version 1 refuses more, and lxcfs is to show the same. Its period is twice as long, which
// tells it from one that somebody else has set.
func (q quota) shared() quota {
	if 2*q.period > maxPeriod {
		return q
	}
	return quota{time: 2 * q.time, period: 2 * q.period}
}

// files are the files of a group to be written, in this order.
func (q quota) files(unified bool) [][2]string {
	if unified {
		return [][2]string{{maxV2, fmt.Sprintf("%d %d", q.time, q.period)}}
	}
	return [][2]string{{periodV1, strconv.FormatUint(q.period, 10)}, {quotaV1, strconv.FormatUint(q.time, 10)}}
}

// Files of the cpu controller.
const (
	maxV2    = "cpu.max"
	quotaV1  = "cpu.cfs_quota_us"
	periodV1 = "cpu.cfs_period_us"
)
