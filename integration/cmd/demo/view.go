// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/rig"
)

// limit is the memory of both containers in MiB.
const limit = 256

// volume is a directory of the host that both containers get read-only. The
// names are written where a container could.
const volume = "/var/lib/demo-volume"

// container is one of the two.
type container struct {
	*stage
	id      string // also its name
	pid     int
	started time.Time
}

// row is one line of the comparison.
type row struct {
	title string
	// how says how to see it, as a reader would.
	how string
	// look returns what is seen, with an error if that is not as promised.
	look func(ctx context.Context, c *container) (string, error)
}

// sideBySide runs the image under both runtimes with the same flags.
func sideBySide(ctx context.Context, s *stage) (err error) {
	if err := os.MkdirAll(volume, 0o755); err != nil {
		return fmt.Errorf("make volume: %w", err)
	}
	flags := []string{
		"--memory-limit", strconv.Itoa(limit << 20), "--cpus", "1", "--cap-add", "CAP_SYS_ADMIN",
		"--mount", "type=bind,src=" + volume + ",dst=/vol,options=rbind:ro",
	}
	progress("running it under both runtimes, with the same command line")
	fmt.Println()
	say(slices.Concat([]string{"run", "-d", "--runtime", "$RUNTIME"}, flags, []string{s.image, "$NAME", "sleep", "infinity"})...)
	sayExec("$NAME", "$SCRIPT")
	fmt.Println()
	var containers []*container
	for _, name := range []string{upstream, isolate} {
		c := &container{stage: s, id: name, started: time.Now()}
		if err := s.run(ctx, slices.Concat([]string{"--runtime", name}, flags, []string{s.image, name, "sleep", "infinity"})...); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.remove(ctx, name)) }()
		if c.pid, err = s.pid(ctx, name); err != nil {
			return err
		}
		containers = append(containers, c)
	}
	return compare(ctx, containers)
}

// compare prints the rows and returns what was not as promised.
func compare(ctx context.Context, containers []*container) error {
	const format = "%-36s  %-29s  %s\n"
	fmt.Printf(format, "", containers[0].id, containers[1].id)
	var broken []error
	for _, r := range rows {
		var seen [2]string
		for i, c := range containers {
			var err error
			if seen[i], err = r.look(ctx, c); err != nil {
				broken = append(broken, fmt.Errorf("%s: %s under %s: %w", r.title, seen[i], c.id, err))
			}
		}
		fmt.Printf(format, r.title, seen[0], seen[1])
		fmt.Printf("  %s\n", r.how)
	}
	fmt.Println()
	return errors.Join(broken...)
}

var rows = []row{
	{"user ids: container, host, how many", "cat /proc/self/uid_map", uidMap},
	{"owner of its processes", "host: ps -o uid= -p $PID", processOwner},
	{"owner of a file it makes, on disk", "touch /made; host: stat -c %u $UPPERDIR/made", fileOwner},
	{"memory", "free -m", memory},
	{"memory, by sysinfo(2)", "getconf _PHYS_PAGES", pages},
	{"processors online", "getconf _NPROCESSORS_ONLN", processors},
	{"uptime", "cat /proc/uptime", uptime},
	{"making a read-only volume writable", "mount -o remount,rw /vol && touch /vol/$NAME", remount},
	{"a container in the container", "unshare --user --map-root-user --pid --fork --mount-proc true", nest},
}

// promise is nil if what is seen is what was promised.
func promise(kept bool, format string, args ...any) error {
	if kept {
		return nil
	}
	return fmt.Errorf("want "+format, args...)
}

func uidMap(ctx context.Context, c *container) (string, error) {
	r := c.exec(ctx, c.id, "cat /proc/self/uid_map")
	fields := strings.Fields(r.Stdout)
	if len(fields) != 3 {
		return "?", errors.Join(r.Err(), fmt.Errorf("uid_map is %q", r.Stdout))
	}
	mapped := fields[0] == "0" && fields[1] != "0" && fields[2] == "65536"
	return strings.Join(fields, " "), promise(mapped == (c.id == isolate), "65536 ids of its own only under %s", isolate)
}

func processOwner(_ context.Context, c *container) (string, error) {
	owner, err := ownerOf(fmt.Sprintf("/proc/%d", c.pid))
	if err != nil {
		return "?", err
	}
	seen := strconv.FormatUint(uint64(owner), 10)
	if owner == 0 {
		seen += ", the host's root"
	}
	return seen, promise((owner == 0) == (c.id == upstream), "root of the host only under %s", upstream)
}

func fileOwner(ctx context.Context, c *container) (string, error) {
	if err := c.exec(ctx, c.id, "touch /made").Err(); err != nil {
		return "?", err
	}
	upper, err := c.upper(ctx, c.id)
	if err != nil {
		return "?", err
	}
	owner, err := ownerOf(filepath.Join(upper, "made"))
	if err != nil {
		return "?", err
	}
	return strconv.FormatUint(uint64(owner), 10), promise(owner == 0, "0, whatever the ids of the container")
}

func ownerOf(path string) (uint32, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return 0, fmt.Errorf("stat %q: %w", path, err)
	}
	return stat.Uid, nil
}

func memory(ctx context.Context, c *container) (string, error) {
	r := c.exec(ctx, c.id, "free -m")
	total, err := number(r, "Mem:")
	if err != nil {
		return "?", err
	}
	return promised(c, total)
}

// pages asks a C library that asks the kernel, as free of Alpine does.
func pages(ctx context.Context, c *container) (string, error) {
	r := c.exec(ctx, c.id, "getconf _PHYS_PAGES")
	total, err := strconv.Atoi(strings.TrimSpace(r.Stdout))
	if err != nil {
		return "?", errors.Join(r.Err(), err)
	}
	return promised(c, total*os.Getpagesize()>>20)
}

// promised compares a total in MiB with the container's limit, or the host's.
func promised(c *container, total int) (string, error) {
	text, err := hostFile("/proc/meminfo")
	if err != nil {
		return "?", err
	}
	host, err := number(rig.Result{Stdout: text}, "MemTotal:")
	if err != nil {
		return "?", err
	}
	want := host / 1024
	if c.id == isolate {
		want = min(want, limit)
	}
	return fmt.Sprintf("%d MiB", total), promise(total == want, "%d MiB", want)
}

// number returns the number after a word.
func number(r rig.Result, word string) (int, error) {
	_, rest, _ := strings.Cut(r.Stdout, word)
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, errors.Join(r.Err(), fmt.Errorf("no %q in %q", word, r.Stdout))
	}
	return strconv.Atoi(fields[0])
}

func processors(ctx context.Context, c *container) (string, error) {
	r := c.exec(ctx, c.id, "getconf _NPROCESSORS_ONLN")
	seen := strings.TrimSpace(r.Stdout)
	want := strconv.Itoa(runtime.NumCPU())
	if c.id == isolate {
		want = "1"
	}
	return seen, errors.Join(r.Err(), promise(seen == want, "%s", want))
}

func uptime(ctx context.Context, c *container) (string, error) {
	r := c.exec(ctx, c.id, "cat /proc/uptime")
	whole, _, _ := strings.Cut(r.Stdout, ".")
	seconds, err := strconv.Atoi(whole)
	if err != nil {
		return "?", errors.Join(r.Err(), fmt.Errorf("uptime is %q: %w", r.Stdout, err))
	}
	seen := time.Duration(seconds) * time.Second
	age := time.Since(c.started)
	return seen.String(), promise((seen <= age+time.Second) == (c.id == isolate), "that of the container (%s) only under %s", age.Round(time.Second), isolate)
}

func remount(ctx context.Context, c *container) (string, error) {
	r := c.exec(ctx, c.id, "mount -o remount,rw /vol && touch /vol/"+c.id)
	_, err := os.Stat(filepath.Join(volume, c.id))
	if c.id == upstream {
		return outcome(r, "done, writes to the host"), errors.Join(r.Err(), err)
	}
	return outcome(r, "done, writes to the host"), promise(r.Err() != nil && errors.Is(err, os.ErrNotExist), "a refusal")
}

func nest(ctx context.Context, c *container) (string, error) {
	r := c.exec(ctx, c.id, "unshare --user --map-root-user --pid --fork --mount-proc true")
	if c.id == upstream {
		return outcome(r, "done"), nil
	}
	return outcome(r, "done"), r.Err()
}

// outcome is what a program came to, in a few words.
func outcome(r rig.Result, done string) string {
	if r.Err() == nil {
		return done
	}
	for _, reason := range []string{"permission denied", "operation not permitted"} {
		if strings.Contains(strings.ToLower(r.Stderr), reason) {
			return reason
		}
	}
	return fmt.Sprintf("exit status %d", r.Code)
}
