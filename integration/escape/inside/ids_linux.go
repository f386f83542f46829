// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const sharedVolume = "/vol/rw"

// ids takes ids that are not the container's, and leaves things behind for
// another container to find: on the volume that both have, in the keyring, in
// memory.
func ids(f facts) {
	file := sharedVolume + "/owned"
	must(os.WriteFile(file, nil, 0o644))
	for name, id := range map[string]int{"beyond": 65536, "nobody": 65534, "last": 1<<32 - 2, "host": 1000000} {
		try("chown:"+name, func() error { return unix.Lchown(file, id, -1) })
		try("chgrp:"+name, func() error { return unix.Lchown(file, -1, id) })
		try("chown-rootfs:"+name, func() error {
			must(os.MkdirAll(scratch, 0o700))
			must(os.WriteFile(scratch+"/owned", nil, 0o600))
			return unix.Lchown(scratch+"/owned", id, id)
		})
	}
	must(os.Lchown(file, 1000, 1000))
	for _, id := range []int{65536, 1 << 31} {
		try(fmt.Sprintf("setuid:%d", id), func() error { return call(unix.SYS_SETUID, uintptr(id)) })
		try(fmt.Sprintf("setgid:%d", id), func() error { return call(unix.SYS_SETGID, uintptr(id)) })
	}
	try("nested-map", func() error { return nestedMap("0 65536 1") })
	try("nested-map-too-long", func() error { return nestedMap("0 0 65537") })
	try("nested-map-own", func() error { return nestedMap("0 0 65536") })

	program, err := os.ReadFile("/proc/self/exe")
	must(err)
	try("setuid-program", func() error {
		path := sharedVolume + "/setuid"
		if err := os.WriteFile(path, program, 0o755); err != nil {
			return err
		}
		return os.Chmod(path, 0o755|os.ModeSetuid|os.ModeSetgid)
	})
	try("capable-program", func() error {
		path := sharedVolume + "/capable"
		must(os.WriteFile(path, program, 0o755))
		var value [20]byte // struct vfs_cap_data: CAP_SYS_ADMIN, effective
		binary.LittleEndian.PutUint32(value[:], 0x02000001)
		binary.LittleEndian.PutUint32(value[4:], 1<<unix.CAP_SYS_ADMIN)
		return unix.Setxattr(path, "security.capability", value[:], 0)
	})
	try("trusted-attribute", func() error { return unix.Setxattr(file, "trusted.escape", []byte("x"), 0) })
	leave()
}

// nestedMap makes a user namespace with a mapping; its parent is the
// container's.
func nestedMap(text string) error {
	command := exec.CommandContext(context.Background(), "/proc/self/exe", "child", "nap")
	command.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	must(command.Start())
	defer func() {
		command.Process.Kill() //nolint:errcheck // it sleeps for a minute
		command.Wait()         //nolint:errcheck // killed
	}()
	return os.WriteFile(fmt.Sprintf("/proc/%d/uid_map", command.Process.Pid), []byte(text), 0)
}

func nap() { time.Sleep(time.Minute) }

// leave makes a key and SysV objects, and says what they are.
func leave() {
	// That of its user, since it may add none.
	serial, err := unix.KeyctlInt(unix.KEYCTL_GET_KEYRING_ID, unix.KEY_SPEC_USER_KEYRING, 1, 0, 0)
	must(err)
	say("left/key", strconv.Itoa(serial), "")
	const key, create = 0x15018, 0o1000
	_, err = callFd(unix.SYS_SHMGET, key, 4096, create|0o666)
	must(err)
	say("left/ipc", strconv.Itoa(key), "")
}

// whoami tells what a set-user-id program on the volume has become, and who owns
// the files there.
func whoami() {
	ids, err := os.ReadFile("/proc/self/uid_map")
	must(err)
	status, err := os.ReadFile("/proc/self/status")
	must(err)
	capabilities := ""
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "CapEff:") {
			capabilities = strings.TrimSpace(strings.TrimPrefix(line, "CapEff:"))
		}
	}
	say("whoami", fmt.Sprintf("%d %d", os.Getuid(), os.Geteuid()), strings.Join(strings.Fields(string(ids)), " "))
	say("whoami/capabilities", capabilities, "")
	for _, name := range []string{"owned", "setuid"} {
		var st unix.Stat_t
		err := unix.Lstat(sharedVolume+"/"+name, &st)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			panic(err)
		}
		say("owner/"+name, fmt.Sprintf("%d:%d", st.Uid, st.Gid), "")
	}
}
