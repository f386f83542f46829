// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/plan"
	"github.com/isolate-shim/isolate/shim/stage"
	"github.com/isolate-shim/isolate/spec"
)

// nest finds out and makes what the container needs for running containers inside it.
func (c *creation) nest(st *stage.Stage, rootfs string) error {
	n, s := c.plan.Nesting, c.doc.Spec
	var err error
	if n.AppArmor, err = appArmor(c.cfg); err != nil {
		return err
	}
	if n.SELinux, err = selinuxTypes(s.Process.SelinuxLabel); err != nil {
		return err
	}
	if n.Limits, err = hostLimits(); err != nil {
		return err
	}
	if n.Systemd, err = c.startsSystemd(rootfs); err != nil {
		return err
	}
	if n.Systemd {
		if n.Units, err = st.Units(c.plan.Mapping); err != nil {
			return err
		}
	}
	if n.Hidden, err = st.Hidden(c.plan.Mapping); err != nil {
		return err
	}
	if n.Devices, err = st.Devices(spec.Devices(s), c.plan.Mapping); err != nil {
		return err
	}
	programs, err := st.FindPrograms(rootfs, s.Mounts)
	if err != nil {
		return err
	}
	defer programs.Close() //nolint:errcheck // O_PATH
	if c.standIns, err = st.StandIns(programs, c.plan.Mapping); err != nil {
		return err
	}
	if c.getsStores() {
		covered := func(path string) bool { return spec.Covered(s, path) }
		var warnings []string
		if n.Stores, warnings, err = st.Stores(programs, c.upper, c.plan.Mapping, covered); err != nil {
			return err
		}
		c.plan.Warnings = append(c.plan.Warnings, warnings...)
	}
	return nil
}

// getsStores tells whether programs inside need stores apart from the rootfs, and can have
// them.
func (c *creation) getsStores() bool {
	return c.plan.Nesting != nil && c.upper != "" && !c.doc.Spec.Root.Readonly
}

// startsSystemd tells whether the container's first process is systemd.
func (c *creation) startsSystemd(rootfs string) (bool, error) {
	if c.cfg.Init != config.InitAuto {
		return c.cfg.Init == config.InitSystemd, nil
	}
	found, err := stage.IsSystemd(rootfs, c.doc.Spec.Process)
	if errors.Is(err, stage.ErrUnclear) {
		c.plan.Warnings = append(c.plan.Warnings, fmt.Sprintf("%v, so it counts as something else; the setting init tells it", err))
		err = nil
	}
	return found, err
}

// hostLimits returns the hard limits above which a runtime on this host cannot go.
func hostLimits() (map[string]uint64, error) {
	data, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		return nil, fmt.Errorf("limit of open files: %w", err)
	}
	nrOpen, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("limit of open files: %w", err)
	}
	if may, err := setsLimits(); err != nil || may {
		return plan.HardLimits(nrOpen, nil), err
	}
	own := map[string]uint64{}
	for name, resource := range resources {
		var l unix.Rlimit
		if err := unix.Getrlimit(resource, &l); err != nil {
			return nil, fmt.Errorf("limit %s: %w", name, err)
		}
		own[name] = l.Max
	}
	return plan.HardLimits(nrOpen, own), nil
}

// setsLimits tells whether this process has CAP_SYS_RESOURCE.
func setsLimits() (bool, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return false, fmt.Errorf("own capabilities: %w", err)
	}
	return caps[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0, nil
}

// resources are the names of the OCI runtime spec.
var resources = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE,
	"RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}
