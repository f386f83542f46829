// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/isolate-shim/isolate/integration/cache"
)

// maxAge is how long package lists are good for. Debian keeps the files of a
// superseded version for longer than that.
const maxAge = 24 * time.Hour

// private is an apt of its own for one suite.
type private struct{ dir string }

func (a private) env() []string {
	return []string{"APT_CONFIG=" + filepath.Join(a.dir, "apt.conf"), "LC_ALL=C.UTF-8"}
}

// open returns the apt of a suite, with lists that are not too old. Without a
// network old lists do, with a warning.
func open(ctx context.Context, suite Suite) (private, error) {
	root, err := cache.Root()
	if err != nil {
		return private{}, err
	}
	a := private{dir: filepath.Join(root, "apt-"+string(suite))}
	if a.fresh() {
		return a, nil
	}
	err = a.refresh(ctx, suite)
	if err != nil && a.complete() {
		fmt.Fprintf(os.Stderr, "warning: package lists of %s are old and stay so: %v\n", suite, firstLine(err))
		return a, nil
	}
	return a, err
}

func (a private) fresh() bool {
	info, err := os.Stat(a.dir)
	return err == nil && time.Since(info.ModTime()) < maxAge
}

func (a private) complete() bool {
	_, err := os.Stat(filepath.Join(a.dir, "apt.conf"))
	return err == nil
}

// refresh makes the directory anew beside the old one and swaps them, so that
// the age of the directory is the age of the lists.
func (a private) refresh(ctx context.Context, suite Suite) error {
	if err := os.MkdirAll(filepath.Dir(a.dir), 0o755); err != nil {
		return fmt.Errorf("make cache: %w", err)
	}
	unlock, err := cache.Lock(ctx, a.dir+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if a.fresh() {
		return nil
	}
	m, err := findMirror(ctx)
	if err != nil {
		return err
	}
	settings, err := machineSettings(ctx)
	if err != nil {
		return err
	}
	settings += suite.options()
	temporary, err := os.MkdirTemp(filepath.Dir(a.dir), ".new-apt-")
	if err != nil {
		return fmt.Errorf("make package lists: %w", err)
	}
	defer os.RemoveAll(temporary)
	b := private{dir: temporary}
	if err := b.write(temporary, m.sources(suite), settings); err != nil {
		return err
	}
	var log bytes.Buffer
	if err := (cache.Command{Env: b.env(), Log: &log}).Run(ctx, "apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update"); err != nil {
		return fmt.Errorf("get package lists of %s: %w\n%s", suite, err, log.Bytes())
	}
	if err := b.write(a.dir, m.sources(suite), settings); err != nil {
		return err
	}
	now := time.Now()
	if err := errors.Join(os.RemoveAll(a.dir), os.Rename(temporary, a.dir), os.Chmod(a.dir, 0o755), os.Chtimes(a.dir, now, now)); err != nil {
		return fmt.Errorf("put package lists of %s in place: %w", suite, err)
	}
	return nil
}

// write fills the directory with a configuration which says that it lives at
// path.
func (a private) write(path, sources, settings string) error {
	config := `Dir "` + path + `";
Dir::Etc "etc";
Dir::Etc::trustedparts "` + path + `/etc/trusted.gpg.d";
Dir::State "state";
Dir::State::status "` + path + `/status";
Dir::Cache "cache";
Dir::Log "log";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
` + settings
	var errs []error
	for _, dir := range []string{"etc/apt.conf.d", "etc/preferences.d", "etc/trusted.gpg.d", "state/lists/partial", "cache/archives/partial", "resolved", "log"} {
		errs = append(errs, os.MkdirAll(filepath.Join(a.dir, dir), 0o755))
	}
	for name, text := range map[string]string{"apt.conf": config, "etc/sources.list": sources, "status": ""} {
		errs = append(errs, os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o644))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write apt configuration: %w", err)
	}
	return nil
}

// machineSettings returns how this machine reaches its mirrors, a proxy for
// example. Everything else in the machine's configuration is left out.
func machineSettings(ctx context.Context) (string, error) {
	out, err := cache.Command{}.Output(ctx, "apt-config", "dump")
	if err != nil {
		return "", err
	}
	var settings strings.Builder
	for line := range strings.Lines(out) {
		for _, prefix := range []string{"Acquire::http", "Acquire::https", "Acquire::ForceIPv"} {
			if strings.HasPrefix(line, prefix) && !strings.HasSuffix(strings.TrimSpace(line), `"";`) {
				settings.WriteString(line)
				break
			}
		}
	}
	return settings.String(), nil
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
