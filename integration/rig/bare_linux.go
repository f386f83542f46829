// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

const stageBare = "bare"

// Bare runs a package's tests on the machine itself and returns the exit code.
// It is for what needs the machine's process 1, and for machines that are
// thrown away afterwards: nothing is put between the tests and the machine, and
// what they change stays.
func Bare(m *testing.M) int {
	code, err := bare(m)
	if err != nil {
		fmt.Fprintf(os.Stderr, "rig: %v\n", err)
		return 1
	}
	return code
}

// IsBare tells that the tests run by Bare.
func IsBare() bool { return os.Getenv(stageEnv) == stageBare }

func bare(m *testing.M) (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("integration tests need root")
	}
	work, err := makeWork()
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	err = errors.Join(
		os.Chmod(filepath.Join(work, "tmp"), 0o1777),
		os.Setenv(workEnv, work), os.Setenv(stageEnv, stageBare),
		os.Setenv("TMPDIR", filepath.Join(work, "test")),
	)
	if err != nil {
		return 1, fmt.Errorf("prepare machine: %w", err)
	}
	code = m.Run()
	if outcome := requirements.report(os.Stderr); code == 0 {
		code = outcome
	}
	return code, nil
}
