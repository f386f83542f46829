// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/shim/apparmor"
)

const label = "cat /proc/self/attr/current"

// within is what a container that nests does by itself.
const within = `
try() { what=$1; shift; "$@" >/tmp/out 2>&1 && echo "$what works" || { echo "$what fails"; cat /tmp/out; }; }
mkdir /a /b /c
try tmpfs mount -t tmpfs t /a
try bind mount --bind /etc /b
try remount mount -o remount,bind,ro /b
try umount umount /b
try proc mount -t proc p /c
try userns unshare -U true
try 'proc in a user namespace' unshare -Urmpf --mount-proc true
try 'network sysctl' sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
try 'ipc sysctl' sh -c 'cat /proc/sys/kernel/shmmax >/tmp/v && cat /tmp/v >/proc/sys/kernel/shmmax'
try 'control group' mkdir /sys/fs/cgroup/inner
try 'own device' sh -c 'mkdir /d && mount -t sysfs s /d && echo 1400 >/d/class/net/lo/mtu'
sleep 100 & p=$!
try trace sh -c "head -c1 /proc/$p/environ"
try signal kill $p`

// TestParsers loads the profile as each series of parsers compiles it, and nests
// under it.
func TestParsers(t *testing.T) {
	rig.Require(t, rig.Root, rig.AppArmor, rig.CgroupV2)
	for _, tt := range []struct {
		name     string
		parser   peer.Name
		newer    bool
		features string // what distributions set as policy-features
	}{
		{"2", peer.AppArmor2, false, ""},
		{"3", peer.AppArmor3, false, ""},
		{"4", peer.AppArmor4, true, ""},
		{"4 mediating user namespaces", peer.AppArmor4, true, "root/etc/apparmor.d/abi/4.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := watch(t)
			if tt.features != "" {
				p, err := peer.Get(t.Context(), tt.parser)
				if err != nil {
					t.Fatal(err)
				}
				pin(t, filepath.Join(p.Dir, tt.features))
			}
			load(t, tt.parser)
			text, err := os.ReadFile(apparmor.File)
			if err != nil {
				t.Fatal(err)
			}
			if has := strings.Contains(string(text), "\n  userns,"); has != tt.newer {
				t.Errorf("the profile has a rule for user namespaces: %v", has)
			}
			n := newest(t)
			if got := rig.Exec(t.Context(), filepath.Join(n.Bin, "isolatectl"), "apparmor", "print").Must(t); got != strings.TrimSuffix(string(text), "\n") {
				t.Errorf("printed %q, loaded %q", got, text)
			}
			r := n.run(t, nil, label+within)
			out := r.Must(t)
			if !strings.HasPrefix(out, apparmor.Name+" (enforce)") || strings.Count(out, " works") != 13 || strings.Contains(out, "fails") {
				t.Errorf("in a container:\n%s%s", out, r.Stderr)
			}
			if tt.features != "" {
				withoutRule(t, string(text))
			}
			list := log.next(t)
			if !slices.ContainsFunc(list, func(line string) bool {
				return strings.Contains(line, `operation="profile_load"`) && strings.Contains(line, `name="isolate-default"`)
			}) {
				t.Errorf("the kernel's log does not tell of AppArmor: is audit=1 on its command line?\n%q", list)
			}
			if d := denied(list, apparmor.Name); len(d) > 0 {
				t.Errorf("denied:\n%s", strings.Join(d, "\n"))
			}
		})
	}
}

// pin makes parsers compile for a set of features, until the test ends.
func pin(t *testing.T, features string) {
	t.Helper()
	const file = "/etc/apparmor/parser.conf"
	before, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := os.Remove(file)
		if before != nil {
			err = os.WriteFile(file, before, 0o644)
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("policy-features="+features+"\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// withoutRule proves that the rule for user namespaces is needed where they are
// mediated: by Linux 6.7 and later, and by Ubuntu's.
func withoutRule(t *testing.T, text string) {
	t.Helper()
	_, body, _ := strings.Cut(text, apparmor.Name+" flags=")
	define(t, "isolate-test-userns", "flags="+strings.ReplaceAll(body, "\n  userns,", "\n"))
	r := rig.Exec(t.Context(), "sh", "-c", "echo 'exec isolate-test-userns' >/proc/self/attr/exec && exec unshare -U true")
	features, err := os.ReadFile("/sys/kernel/security/apparmor/features/namespaces/mask")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if mediates := strings.Contains(string(features), "userns_create"); mediates != deniedError.MatchString(r.Stderr) {
		t.Errorf("the kernel mediates user namespaces: %v; one without the rule: %v", mediates, r.Err())
	}
}

// TestProfiles looks at the profile that containers get, and their exec'd processes.
func TestProfiles(t *testing.T) {
	rig.Require(t, rig.Root, rig.AppArmor, rig.CgroupV2)
	load(t, peer.AppArmor3)
	const (
		ours, engines = apparmor.Name + " (enforce)", "docker-default (enforce)"
		custom        = "isolate-test-custom"
	)
	define(t, custom, "flags=(attach_disconnected) {\n file,\n capability,\n network,\n signal,\n ptrace,\n}")
	t.Cleanup(func() { remove(t, "docker-default") })
	const asDocker = "--apparmor-default-profile=docker-default" // loads it, too
	for _, tt := range []struct {
		name    string
		runtime peer.Name
		toml    string
		flags   []string
		want    string
	}{
		{"none", peer.Runc15, "", nil, ours},
		{"engine's", peer.Runc15, "", []string{asDocker}, ours},
		{"engine's, crun", peer.Crun121, "", []string{asDocker}, ours},
		{"asked for", peer.Runc15, "", []string{"--apparmor-profile=" + custom}, custom + " (enforce)"},
		{"unconfined", peer.Runc15, "", []string{"--apparmor-profile=unconfined"}, "unconfined"},
		{"engine's, kept", peer.Runc15, `apparmor = "keep"`, []string{asDocker}, engines},
		{"none, kept", peer.Runc15, `apparmor = "keep"`, nil, "unconfined"},
		{"engine's, without nesting", peer.Runc15, `nesting = "off"`, []string{asDocker}, engines},
	} {
		t.Run(tt.name, func(t *testing.T) {
			configure(t, tt.toml)
			defer configure(t, "")
			n := on(t, tt.runtime)
			id := n.start(t, tt.flags...)
			// The first process, and one that containerd sends with the caller's profile.
			want := tt.want + "\n" + tt.want
			if got := n.exec(t, id, "cat /proc/1/attr/current /proc/self/attr/current").Must(t); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestNotLoaded: under an engine's profile nothing can be nested, and that is said,
// once, with what to do.
func TestNotLoaded(t *testing.T) {
	rig.Require(t, rig.Root, rig.AppArmor, rig.CgroupV2)
	parser(t, peer.AppArmor3)
	t.Cleanup(func() { remove(t, "docker-default") })
	n := newest(t)
	var end int
	n.warnings(t, &end)
	id := n.start(t, "--apparmor-default-profile=docker-default")
	r := n.exec(t, id, label+"; mount -t tmpfs t /tmp && echo mounted")
	if !strings.HasPrefix(r.Stdout, "docker-default (enforce)") || strings.Contains(r.Stdout, "mounted") {
		t.Errorf("%s%s", r.Stdout, r.Stderr)
	}
	warned := n.warnings(t, &end)
	if len(warned) != 1 || !strings.Contains(warned[0], "AppArmor profile docker-default denies mounts") || !strings.Contains(warned[0], "isolatectl apparmor load") {
		t.Errorf("warned %q", warned)
	}
}

// host lists what the profile keeps from the host's own root: user namespaces are
// not what denies it here.
var host = []struct{ name, script string }{
	{"sysrq", "echo h >/proc/sysrq-trigger"},
	{"memory", "head -c1 /proc/kcore"},
	{"memory map", "head -c8 /proc/kpageflags"},
	{"crash handler", "v=$(cat /proc/sys/kernel/core_pattern) && echo \"$v\" >/proc/sys/kernel/core_pattern"},
	{"module loader", "v=$(cat /proc/sys/kernel/modprobe) && echo \"$v\" >/proc/sys/kernel/modprobe"},
	{"caches", "echo 1 >/proc/sys/vm/drop_caches"},
	{"interrupts", "v=$(cat /proc/irq/default_smp_affinity) && echo \"$v\" >/proc/irq/default_smp_affinity"},
	{"tracing", "head -c1 /sys/kernel/tracing/README"},
	{"debugging", "ls /sys/kernel/debug/bdi/"},
	{"security modules", "cat /sys/kernel/security/lsm"},
	{"firmware", "cat /sys/firmware/memmap/0/start"},
	{"huge pages", "echo madvise >/sys/kernel/mm/transparent_hugepage/enabled"},
	{"module", "v=$(cat /sys/module/overlay/parameters/metacopy) && echo \"$v\" >/sys/module/overlay/parameters/metacopy"},
	{"clock source", "v=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource) && echo \"$v\" >/sys/devices/system/clocksource/clocksource0/current_clocksource"},
	{"signal", "kill -0 $OUTSIDER"},
	{"environment", "head -c1 /proc/$OUTSIDER/environ"},
	{"policy", "printf isolate-test-vanish >/sys/kernel/security/apparmor/.remove"},
	{"profile", "echo 'changeprofile unconfined' >/proc/self/attr/current"},
}

// deniedError is what programs say of EACCES or EPERM; "I/O error" is what dash makes
// of every error in writing.
var deniedError = regexp.MustCompile(`[Pp]ermission denied|not permitted|I/O error`)

// TestConfines proves that it is the profile which denies, and that everything would
// work without it.
func TestConfines(t *testing.T) {
	rig.Require(t, rig.Root, rig.AppArmor)
	load(t, peer.AppArmor3)
	outsider := exec.CommandContext(t.Context(), "sleep", "100000")
	outsider.Env = []string{"A=b"}
	if err := outsider.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		outsider.Process.Kill() //nolint:errcheck // it sleeps
		outsider.Wait()         //nolint:errcheck // it was killed
	})
	t.Setenv("OUTSIDER", strconv.Itoa(outsider.Process.Pid))
	define(t, "isolate-test-vanish", "{}")
	for _, tt := range host {
		under := fmt.Sprintf("echo 'exec %s' >/proc/self/attr/exec && exec sh -c '%s'", apparmor.Name, strings.ReplaceAll(tt.script, "'", `'\''`))
		r := rig.Exec(t.Context(), "sh", "-c", under)
		if r.Err() == nil {
			t.Errorf("%s: allowed: %s", tt.name, tt.script)
		} else if !deniedError.MatchString(r.Stderr) {
			t.Errorf("%s: failed for another reason: %s", tt.name, r.Stderr)
		}
		if err := rig.Exec(t.Context(), "sh", "-c", tt.script).Err(); err != nil {
			t.Errorf("%s: it does not even work without the profile, which proves nothing: %v", tt.name, err)
		}
	}
}
