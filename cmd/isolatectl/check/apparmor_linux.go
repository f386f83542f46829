// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"errors"
	"os"
	"strconv"

	"github.com/isolate-shim/isolate/shim/apparmor"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/record"
)

// appArmor reports whether AppArmor is on, and whether containers can be confined
// by it without losing what nesting needs.
func appArmor(r *Report, cfg config.Config) {
	const what = "AppArmor"
	if !apparmor.Enabled() {
		r.ok(what, "off")
		return
	}
	userns := restrictedUserns()
	loaded, err := apparmor.Loaded()
	switch {
	case err != nil:
		r.bad(Degraded, what, "run isolatectl as root in the host's user namespace, unconfined", "on; %v", err)
	case cfg.AppArmor == config.AppArmorKeep:
		r.ok(what, "on; containers keep the profile that their engine gives them (apparmor = \"keep\"), and one that denies mounts denies nesting%s", userns)
	case cfg.Nesting == config.NestingOff:
		r.ok(what, "on; containers keep the profile that their engine gives them (nesting = \"off\")%s", userns)
	case loaded:
		r.ok(what, "on; containers get the profile %s%s", apparmor.Name, userns)
	default:
		r.bad(Degraded, what, "isolatectl apparmor load",
			"on, and the profile %s is not loaded: the default ones of Docker, Kubernetes and nerdctl deny mounts, so that nothing runs inside their containers%s", apparmor.Name, userns)
	}
}

// restrictedUserns tells of Ubuntu's rule that only processes under a profile with
// a right to it get capabilities in a new user namespace. isolate-default has it.
func restrictedUserns() string {
	if n, err := sysctl("kernel/apparmor_restrict_unprivileged_userns"); err == nil && n != 0 {
		return "; user namespaces are restricted (kernel.apparmor_restrict_unprivileged_userns), but not for containers under " + apparmor.Name
	}
	return ""
}

const confinedFix = "use a containerd that is not confined: MicroK8s installed with --classic, or another distribution's package; " +
	"where only images are to be built, a rootless builder (BuildKit, Buildah) in an ordinary container does"

// confinement reports what the AppArmor profile of a running containerd denies. Its
// shims run under the same one. what names containerd in the report, label is its
// security label, root where it keeps its own store.
func confinement(ctx context.Context, r *Report, what, label, root string) {
	profile, confined := apparmor.Profile(label)
	if !confined {
		return
	}
	for _, dir := range []string{root, record.Root} {
		err := tryLockUnder(ctx, profile, dir)
		switch {
		case errors.Is(err, errLockDenied):
			r.bad(Failed, what, confinedFix, "AppArmor profile %s denies file locks, tried in %s: containerd loses its own store of containers and images, "+
				"isolate cannot reserve ids, and neither Docker nor anything else that locks files works inside", profile, dir)
			return
		case err != nil:
			r.bad(Degraded, what, "look into the kernel's log for apparmor=\"DENIED\"; "+confinedFix, "confined by AppArmor profile %s; trying a file lock under it in %s: %v", profile, dir, err)
			return
		}
	}
	r.bad(Degraded, what, "if containers do not start, look into the kernel's log for apparmor=\"DENIED\"; "+confinedFix,
		"confined by AppArmor profile %s: it allows file locks, and may deny mounts to the shim", profile)
}

// tryLockUnder takes a lock on a file of its own in a directory, under a profile.
// Nothing is left there.
func tryLockUnder(ctx context.Context, profile, dir string) (retErr error) {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := os.Mkdir(dir, 0o711); err != nil {
			return err
		}
		defer func() { retErr = errors.Join(retErr, os.Remove(dir)) }()
	}
	file := dir + "/.isolate-check-" + strconv.Itoa(os.Getpid())
	defer func() {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			retErr = errors.Join(retErr, err)
		}
	}()
	return runUnder(ctx, profile, file)
}
