// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// syscalls makes the calls that change the machine, each with arguments that do
// nothing, or as little as can be told from nothing, if the kernel lets them.
func syscalls(f facts) {
	must(os.MkdirAll(scratch, 0o700))
	name, err := unix.BytePtrFromString("escape")
	must(err)
	text := uintptr(unsafe.Pointer(name))
	try("init_module", func() error { return unix.InitModule([]byte("\x7fELF"), "") })
	try("finit_module", func() error { return unix.FinitModule(0, "", 0) })
	try("delete_module", func() error { return unix.DeleteModule("escape", unix.O_NONBLOCK) })
	try("kexec_load", func() error { return call(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0) })
	try("kexec_file_load", func() error {
		const unload = 1
		return call(unix.SYS_KEXEC_FILE_LOAD, ^uintptr(0), ^uintptr(0), 0, 0, unload)
	})
	try("settimeofday", func() error {
		var now unix.Timeval
		must(unix.Gettimeofday(&now))
		return unix.Settimeofday(&now)
	})
	try("clock_settime", func() error {
		var now unix.Timespec
		must(unix.ClockGettime(unix.CLOCK_REALTIME, &now))
		return unix.ClockSettime(unix.CLOCK_REALTIME, &now)
	})
	try("adjtimex", func() error {
		_, err := unix.Adjtimex(&unix.Timex{Modes: 0x4000, Tick: 10000}) // ADJ_TICK, its default
		return err
	})
	try("swapon", func() error { return swapon("/vol/rw/image") })
	try("swapoff", func() error { return call(unix.SYS_SWAPOFF, text) })
	try("quotactl", func() error {
		disk, err := unix.BytePtrFromString("/vol/rw/nodes/disk")
		must(err)
		var quota [128]byte
		return call(unix.SYS_QUOTACTL, setQuota, uintptr(unsafe.Pointer(disk)), 65534, uintptr(unsafe.Pointer(&quota)))
	})
	try("quotactl_fd", func() error {
		root, err := unix.Open("/vol/rw", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(err)
		defer unix.Close(root)
		var quota [128]byte
		return call(unix.SYS_QUOTACTL_FD, uintptr(root), setQuota, 65534, uintptr(unsafe.Pointer(&quota)))
	})
	try("acct", func() error { return call(unix.SYS_ACCT, 0) })
	try("ioperm", func() error { return ioperm(0x80, 1, 1) })
	try("iopl", func() error { return iopl(3) })
	try("reboot-cad", func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_ON) })
	try("vhangup", func() error { return call(unix.SYS_VHANGUP) })
	try("syslog-read", func() error { _, err := unix.Klogctl(3, make([]byte, 64)); return err })
	try("syslog-console", func() error { return call(unix.SYS_SYSLOG, 8, 0, 7) })
	try("sethostname", func() error { return unix.Sethostname([]byte("escape")) })
	try("setdomainname", func() error { return unix.Setdomainname([]byte("escape")) })
	observers()
	handles(f)
}

// setQuota is Q_SETQUOTA for users (linux/quota.h); a struct of zeros sets nothing.
const setQuota = 0x800008 << 8

func swapon(path string) error {
	p, err := unix.BytePtrFromString(path)
	must(err)
	return call(unix.SYS_SWAPON, uintptr(unsafe.Pointer(p)), 0)
}

// observers are the calls through which a program sees, or is let into, the
// kernel.
func observers() {
	try("perf_event_open-kernel", func() error { return perf(-1, 0) })
	try("perf_event_open-self", func() error { return perf(0, -1) })
	try("bpf-map", func() error {
		attr := [32]uint32{2, 4, 4, 1} // array of one value
		return bpf(0, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	})
	try("bpf-cgroup-program", func() error {
		code := [2]uint64{0xb7, 0x95} // r0 = 0; exit
		license := [4]byte{'G', 'P', 'L'}
		attr := struct {
			kind, count   uint32
			code, license uint64
			rest          [15]uint64
		}{kind: 15, count: 2, code: uint64(uintptr(unsafe.Pointer(&code))), license: uint64(uintptr(unsafe.Pointer(&license)))}
		err := bpf(5, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
		runtime.KeepAlive(&code)
		runtime.KeepAlive(&license)
		return err
	})
	try("bpf-next-program", func() error {
		var attr [32]uint32
		return bpf(11, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	})
	try("userfaultfd-kernel", func() error { return descriptor(unix.SYS_USERFAULTFD, unix.O_CLOEXEC) })
	try("userfaultfd-user", func() error { return descriptor(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|1) })
	try("io_uring_setup", func() error {
		var params [120]byte
		return descriptor(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)))
	})
	try("fanotify-permission", func() error {
		fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY)
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	})
	try("fanotify-filesystem", func() error {
		fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID|unix.FAN_CLOEXEC, unix.O_RDONLY)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN, unix.AT_FDCWD, "/vol/rw")
	})
	try("audit", disableAudit)
	for name, kind := range map[string][3]int{
		"vsock":  {unix.AF_VSOCK, unix.SOCK_STREAM, 0},
		"alg":    {unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
		"packet": {unix.AF_PACKET, unix.SOCK_RAW, 0},
	} {
		try("socket:"+name, func() error {
			fd, err := unix.Socket(kind[0], kind[1]|unix.SOCK_CLOEXEC, kind[2])
			if err == nil {
				err = unix.Close(fd)
			}
			return err
		})
	}
}

// disableAudit asks for what is the case nearly everywhere: no failure mode.
func disableAudit() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	message := struct {
		header unix.NlMsghdr
		status [11]uint32 // mask 2: AUDIT_STATUS_FAILURE
	}{header: unix.NlMsghdr{Len: 60, Type: 1001, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK, Seq: 1}, status: [11]uint32{2}}
	if err := unix.Sendto(fd, (*[60]byte)(unsafe.Pointer(&message))[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	var answer [256]byte
	n, _, err := unix.Recvfrom(fd, answer[:], 0)
	if err != nil {
		return err
	}
	if n < 20 {
		return errNone
	}
	if code := *(*int32)(unsafe.Pointer(&answer[16])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// descriptor makes a call that returns one.
func descriptor(number uintptr, args ...uintptr) error {
	fd, err := callFd(number, args...)
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

func bpf(command uintptr, attr unsafe.Pointer, size uintptr) error {
	return descriptor(unix.SYS_BPF, command, uintptr(attr), size)
}

// perf counts context switches of a process, or all of a CPU with the kernel's.
func perf(pid, cpu int) error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CONTEXT_SWITCHES, Size: unix.PERF_ATTR_SIZE_VER1}
	if pid >= 0 {
		attr.Bits = unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv
	}
	fd, err := unix.PerfEventOpen(&attr, pid, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

// handles opens files of the host by their handles.
func handles(f facts) {
	volume, err := unix.Open("/vol/rw", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(err)
	defer unix.Close(volume)
	// What the kernel takes instead of a descriptor (fcntl.h, Linux 6.15 and 6.18).
	const pidfsRoot, nsfsRoot = -10002, -10003
	for name, at := range map[string]int{
		"host-file": volume, "volume-file": volume, "host-directory": volume,
		"pid": pidfsRoot, "mnt": nsfsRoot, "net": nsfsRoot, "user": nsfsRoot, "ns-pid": nsfsRoot, "cgroup": nsfsRoot, "ipc": nsfsRoot, "uts": nsfsRoot,
	} {
		try("handle:"+name, func() error {
			h, ok := f.Handles[name]
			if !ok {
				return errNone
			}
			flags := unix.O_RDONLY
			if name == "host-directory" {
				flags |= unix.O_DIRECTORY
			}
			fd, err := unix.OpenByHandleAt(at, unix.NewFileHandle(h.Type, h.Bytes), flags|unix.O_CLOEXEC)
			if err == nil {
				err = unix.Close(fd)
			}
			return err
		})
	}
}
