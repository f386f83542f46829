// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sysinfoSize is the size of the struct.
const sysinfoSize = int(unsafe.Sizeof(unix.Sysinfo_t{}))

// stormFor is how long a storm lasts.
const stormFor = 3 * time.Second

// askers is how many threads a storm has.
const askers = 8

// ask calls sysinfo(2) as the order says:
//
//	plain    once
//	storm    from many threads for stormFor
//	null     without memory for the answer
//	hole     with memory for the first half of it
//	pages    with memory in two pages
//	hang     with memory on a file whose server hangs
//
// or mount(2), where nothing can be mounted:
//
//	overlay, tmpfs    a file system of that type
func ask(o order) (a answer, err error) {
	a.Told = map[string]int{}
	page := os.Getpagesize()
	memory, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return a, err
	}
	plain, edge := memory[:sysinfoSize], memory[page-sysinfoSize/2:][:sysinfoSize]
	start := time.Now()
	switch o.Ask {
	case "storm":
		var mu sync.Mutex
		var all sync.WaitGroup
		for range askers {
			all.Go(func() {
				told := map[string]int{}
				for buf := make([]byte, sysinfoSize); time.Since(start) < stormFor; {
					told[call(buf)]++
				}
				mu.Lock()
				defer mu.Unlock()
				for k, n := range told {
					a.Told[k] += n
				}
			})
		}
		all.Wait()
	case "overlay", "tmpfs":
		err := unix.Mount("x", "/nowhere", o.Ask, 0, "lowerdir=/l,upperdir=/u,workdir=w,userxattr")
		a.Told[fmt.Sprint(err)]++
	case "null":
		a.Told[call(nil)]++
	case "hole":
		if _, _, errno := unix.Syscall(unix.SYS_MUNMAP, uintptr(unsafe.Pointer(&memory[page])), uintptr(page), 0); errno != 0 {
			return a, errno
		}
		_, _, errno := unix.Syscall(unix.SYS_SYSINFO, uintptr(unsafe.Pointer(&edge[0])), 0, 0)
		a.Told[errno.Error()]++
	case "pages":
		a.Told[call(edge)]++
	case "hang":
		f, err := os.Open(o.Fuse)
		if err != nil {
			return a, err
		}
		hung, err := unix.Mmap(int(f.Fd()), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
		if err != nil {
			return a, err
		}
		_, _, errno := unix.Syscall(unix.SYS_SYSINFO, uintptr(unsafe.Pointer(&hung[0])), 0, 0)
		a.Told[errno.Error()]++
	default:
		a.Told[call(plain)]++
	}
	a.Took = time.Since(start)
	return a, nil
}

// askBeside has a process ask as the order says, and then others until one is told the
// container's.
func askBeside(o order) (a answer) {
	ended := make(chan struct{})
	go func() {
		run(o)
		close(ended)
	}()
	time.Sleep(Limit / 2) // it begins to hang
	start := time.Now()
	a.Told = map[string]int{}
	for a.Told["container"] == 0 && time.Since(start) < 10*time.Second {
		for k := range run(order{Ask: "plain"}).Told {
			a.Told[k]++
		}
	}
	a.Took = time.Since(start)
	<-ended
	return a
}

// call returns what a call told: of the "container", of the "host", of both, or an error.
func call(buf []byte) string {
	clear(buf)
	_, _, errno := unix.Syscall(unix.SYS_SYSINFO, uintptr(unsafe.Pointer(unsafe.SliceData(buf))), 0, 0)
	if errno != 0 {
		return errno.Error()
	}
	var info unix.Sysinfo_t
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&info)), sysinfoSize), buf)
	switch {
	case info == sampleOf:
		return "container"
	case info.Totalram != sampleOf.Totalram && info.Procs != sampleOf.Procs && info.Loads != sampleOf.Loads && info.Unit == 1:
		return "host"
	}
	return fmt.Sprintf("%+v", info)
}

// sampleOf is what tell tells.
var sampleOf = unix.Sysinfo_t{
	Uptime: 7, Loads: [3]uint64{1, 2, 3}, Procs: 5, Unit: 1,
	Totalram: 6 << 30, Freeram: 5 << 30, Sharedram: 4096, Bufferram: 8192, Totalswap: 1 << 30, Freeswap: 1 << 29,
}
