// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"fmt"
	"slices"
)

// runtimeScript wraps an OCI runtime. A file "VERB-ID" in a directory names a fault
// that happens by that command for that container: what, "early" or "late", "once" or
// "always", and for how many seconds. What has happened is told by a file "hit-VERB-ID".
const runtimeScript = `#!/bin/sh
dir=%[1]s
for word; do
	case $word in create | start | delete | kill | exec | pause | resume) verb=${verb:-$word} ;; esac
	[ "$verb" ] && [ -f "$dir/$verb-$word" ] && id=$word
done
[ "$id" ] || exec %[2]s "$@"
read -r what when often for <"$dir/$verb-$id"
[ "$often" = once ] && rm -f "$dir/$verb-$id"
: >"$dir/hit-$verb-$id"
if [ "$when" = late ]; then
	%[2]s "$@"
	status=$?
fi
# Not its "delete": containerd leaves the bundle if that is killed.
shim() { tr '\0' '\n' <"/proc/$PPID/cmdline" | grep -qx delete || kill -KILL $PPID; }
client() { kill -KILL "$(cat "$dir/client-${id%%-*}-")"; }
case $what in
fail) exit 1 ;;
hang) exec sleep 77777 ;;
garble) printf '{"pid":-1,"status":\001'; exit 0 ;;
shim) shim ;;
client) client ;;
both) client; shim ;;
containerd) kill -KILL "$(cat "$dir/containerd")" ;;
stop)
	pid=$PPID
	setsid sh -c "kill -STOP $pid; sleep $for; kill -CONT $pid" >/dev/null 2>&1 </dev/null &
	;;
esac
[ "$status" ] && exit "$status"
exec %[2]s "$@"
`

// wrapped is the script for a runtime.
func wrapped(dir, program string) string { return fmt.Sprintf(runtimeScript, dir, program) }

// word is a fault as the script knows it.
var word = map[Name]string{
	Fail: "fail", Hang: "hang", Garble: "garble", KillShimAt: "shim", KillClientAt: "client", KillBothAt: "both",
	KillContainerdAt: "containerd", StopShimAt: "stop",
}

// always tells whether a fault happens each time that the runtime gets the command,
// and not once: that is so for what lasts longer than half of the longest.
func (f Fault) always() bool {
	return slices.Contains([]Name{Fail, Hang, Garble}, f.Name) && f.For > longest/2
}

// order is what the script reads about a fault.
func order(f Fault) string {
	when, often := "early", "once"
	if f.Late {
		when = "late"
	}
	if f.always() {
		often = "always"
	}
	return fmt.Sprintf("%s %s %s %.1f\n", word[f.Name], when, often, f.For.Seconds())
}
