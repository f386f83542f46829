// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// usage is what a process holds.
type usage struct{ descriptors, threads, kilobytes int }

func used(t *testing.T, pid int) usage {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d", pid)
	var u usage
	for name, n := range map[string]*int{"fd": &u.descriptors, "task": &u.threads} {
		entries, err := os.ReadDir(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		*n = len(entries)
	}
	for line := range strings.Lines(text(dir + "/status")) {
		if fields := strings.Fields(line); fields[0] == "RssAnon:" {
			var err error
			if u.kilobytes, err = strconv.Atoi(fields[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return u
}

// TestGrowth leads a thousand containers and ten thousand processes through the shim of
// one pod, which then holds no more than before.
func TestGrowth(t *testing.T) {
	rig.Require(t, rig.Root, rig.Long)
	const (
		containers, executions = 1000, 10000
		atOnce                 = 4
		warm                   = 10 // one in so many, first
		growth                 = 2 << 10
	)
	m := demoMachine(t, peer.Crun121, `annotations.allow = ["io.containerd.runc.v2.group"]`)
	group := []string{"--annotation", "io.containerd.runc.v2.group=a"}
	m.start(t, "a", group, "sleep", "86400")
	api, call := taskAPI(t, m)
	process, err := json.Marshal(specs.Process{Args: []string{"true"}, Cwd: "/", Env: []string{"PATH=/bin:/usr/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	asSpec := &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", Value: process}
	execute := func(i int) error {
		id := fmt.Sprintf("e%d", i)
		if _, err := api.Exec(call, &tasks.ExecProcessRequest{ContainerID: "a", ExecID: id, Spec: asSpec}); err != nil {
			return err
		}
		if _, err := api.Start(call, &tasks.StartRequest{ContainerID: "a", ExecID: id}); err != nil {
			return err
		}
		if r, err := api.Wait(call, &tasks.WaitRequest{ContainerID: "a", ExecID: id}); err != nil || r.GetExitStatus() != 0 {
			return fmt.Errorf("exec %s: status %d: %w", id, r.GetExitStatus(), err)
		}
		_, err := api.DeleteProcess(call, &tasks.DeleteProcessRequest{ContainerID: "a", ExecID: id})
		return err
	}
	contain := func(i int) error {
		options := slices.Concat([]string{"run", "--rm", "--null-io", "--runtime", shimName}, group)
		return m.Ctr(t.Context(), append(options, m.reference, fmt.Sprintf("c%d", i), "true")...).Err()
	}
	for _, c := range []struct {
		name string
		n    int
		do   func(i int) error
	}{{"containers", containers, contain}, {"processes", executions, execute}} {
		round := func(first, n int) {
			t.Helper()
			var all sync.WaitGroup
			errs := make([]error, atOnce)
			for worker := range atOnce {
				all.Go(func() {
					for i := first + worker; i < first+n && errs[worker] == nil; i += atOnce {
						errs[worker] = c.do(i)
					}
				})
			}
			all.Wait()
			for _, err := range errs {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		started := time.Now()
		round(0, c.n/warm)
		shim := shimOf(t, "a")
		before := used(t, shim)
		round(c.n/warm, c.n)
		var after usage
		// What ends by itself a moment later, and what the kernel is given back.
		rig.Eventually(t, "descriptors of the shim as before", func() bool { after = used(t, shim); return after.descriptors <= before.descriptors })
		t.Logf("%d %s in %v: %+v, then %+v", c.n, c.name, time.Since(started).Round(time.Second), before, after)
		if after.kilobytes > before.kilobytes+growth {
			t.Errorf("%s: the shim's memory has grown from %d to %d kB", c.name, before.kilobytes, after.kilobytes)
		}
	}
	if n := shims(t); n != 1 {
		t.Errorf("%d shims", n)
	}
}
