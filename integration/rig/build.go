// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/isolate-shim/isolate/integration/cache"
)

// builtName is the project's own programs among the cached things.
const builtName = "isolate-programs"

func init() {
	if os.Getenv("GOCOVERDIR") != "" {
		buildArgv = append(buildArgv, "-cover") // which write there what they have run
	}
	cache.Register(cache.Item{Name: builtName, Resolve: resolveSources, Make: buildPrograms})
}

// Built returns the project's own programs by name, built from the sources as
// they are now.
func Built(ctx context.Context) (map[string]string, error) {
	dir, err := cache.Get(ctx, builtName)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list programs: %w", err)
	}
	programs := map[string]string{}
	for _, entry := range entries {
		programs[entry.Name()] = filepath.Join(dir, entry.Name())
	}
	return programs, nil
}

// resolveSources hashes all that is built into the programs.
func resolveSources(context.Context) (cache.Inputs, error) {
	top, err := repository()
	if err != nil {
		return cache.Inputs{}, err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), buildArgv)
	err = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := path[len(top):]
		if entry.IsDir() {
			if name == "/integration" || name == "/bin" || strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".md") || !entry.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%q %d\n%s", name, len(text), text)
		return nil
	})
	if err != nil {
		return cache.Inputs{}, fmt.Errorf("hash sources: %w", err)
	}
	return cache.Inputs{Version: "work", Parts: []string{hex.EncodeToString(sum.Sum(nil))}}, nil
}

// buildArgv builds the programs as they are released: static, and the shim
// without gRPC, as containerd's own.
var buildArgv = []string{"go", "build", "-trimpath", "-tags", "no_grpc urfave_cli_no_docs", "-ldflags", "-s -w"}

func buildPrograms(ctx context.Context, w cache.Work) error {
	top, err := repository()
	if err != nil {
		return err
	}
	command := cache.Command{Dir: top, Env: []string{"CGO_ENABLED=0"}, Log: w.Log}
	argv := append(buildArgv[:len(buildArgv):len(buildArgv)], "-o", w.Dir+"/", "./cmd/...")
	if err := command.Run(ctx, argv...); err != nil {
		return err
	}
	return forgetOlder(w.Final)
}

// forgetOlder removes earlier builds that nobody runs any more, for there is one
// for every state of the sources that was ever tested.
func forgetOlder(final string) error {
	earlier, err := filepath.Glob(filepath.Join(filepath.Dir(final), builtName+"-*"))
	if err != nil {
		return fmt.Errorf("list earlier builds: %w", err)
	}
	var errs []error
	for _, path := range earlier {
		info, err := os.Stat(path)
		if err == nil && time.Since(info.ModTime()) > 3*time.Hour {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}

// repository finds the top of the sources, from where tests and commands run.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find sources: %w", err)
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module github.com/isolate-shim/isolate\n") {
			return dir, nil
		}
		if dir == "/" {
			return "", errors.New("find sources: not in a directory of the project")
		}
		dir = filepath.Dir(dir)
	}
}
