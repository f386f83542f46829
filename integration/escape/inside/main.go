// SPDX-License-Identifier: Apache-2.0

// The descriptors must be those of the OCI runtime; the Go runtime would keep
// files of the CPU limit open.

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command inside is the attacker of package escape: it runs in a container as
// its root, tries one group of ways out, and prints what became of each as a
// line of JSON. What it means is for the test to judge.
//
// It is static and brings everything along, since an image need not have any
// program. A way that works is taken to its end (a read-only volume is not only
// remounted but written to), so that "allowed" always means an effect.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// attempt is a line of output; package escape reads it.
type attempt struct {
	Name string `json:"name"`
	// Result is "allowed", the name of an error number, or a sentence.
	Result string `json:"result"`
	Detail string `json:"detail,omitempty"`
}

const allowed = "allowed"

// facts is what somebody who knows the host would try to use; the test gives it
// away in a file.
type facts struct {
	Pid        int               // of a process of the host, and of no other
	Namespaces map[string]string // of the host, as in /proc/self/ns
	Abstract   string            // socket of the host's network namespace
	Port       int               // TCP, on the host's 127.0.0.1
	IPCKey     int               // of SysV objects of the host
	Keys       map[string]int    // keys and keyrings of the host
	Handles    map[string]handle // of files, processes and namespaces of the host
	MountNS    uint64            // id of the host's mount namespace
	Block      [2]uint32         // a disk
	HostSocket string            // path of a unix socket of the host
	OtherKey   int               // a key of another container, or 0
	OtherIPC   int               // key of SysV objects of another container
}

type handle struct {
	Type  int32
	Bytes []byte
}

var groups = map[string]func(facts){
	"fds":       fds,
	"mounts":    mounts,
	"root":      root,
	"limits":    limits,
	"processes": processes,
	"ids":       ids,
	"devices":   devices,
	"syscalls":  syscalls,
	"propagate": propagate,
	"sweep":     sweep,
}

func main() {
	if len(os.Args) == 3 {
		switch os.Args[1] {
		case "ping":
			try("ping", func() error { return ping(os.Args[2]) })
			return
		case "end":
			end(os.Args[2])
		case "meet":
			meet(os.Args[2])
		case "peer":
			peer(os.Args[2])
			return
		}
	}
	var f facts
	text, err := os.ReadFile("/vol/facts/facts.json")
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: inside GROUP...")
		os.Exit(1)
	}
	switch os.Args[1] {
	case "init": // the container's first process
		fds(f)
		watch()
	case "child": // see again
		child(os.Args[2:])
	case "whoami":
		whoami()
	default:
		for _, name := range os.Args[1:] {
			group, ok := groups[name]
			if !ok {
				fmt.Fprintf(os.Stderr, "no group %q\n", name)
				os.Exit(1)
			}
			group(f)
			report("end/"+name, nil)
		}
	}
}

// try reports what comes of f.
func try(name string, f func() error) { report(name, f()) }

func report(name string, err error) { say(name, describe(err), "") }

func describe(err error) string {
	if err == nil {
		return allowed
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

func say(name, result, detail string) {
	line, err := json.Marshal(attempt{name, result, strings.ToValidUTF8(detail, "?")})
	if err != nil {
		panic(err) // strings can always be marshalled
	}
	_, err = os.Stdout.Write(append(line, '\n'))
	must(err)
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// call makes a system call that has no wrapper.
func call(number uintptr, args ...uintptr) error {
	_, err := callFd(number, args...)
	return err
}

func callFd(number uintptr, args ...uintptr) (int, error) {
	var a [6]uintptr
	copy(a[:], args)
	r, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}
