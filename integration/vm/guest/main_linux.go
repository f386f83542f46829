// SPDX-License-Identifier: Apache-2.0

// Command guest is init in a virtual machine of package vm. As PID 1 it makes
// the system of which the package's documentation tells; called as "guest job"
// it runs the command there and sends its output to the host.
//
// It is one static program in the place of a shell and its tools, which take
// 1.3 to 2 s for the same under emulation. It only uses the standard library,
// since it is built from source that the runner carries.
package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/isolate-shim/isolate/integration/vm/wire"
)

const (
	// programPath is this program in the guest's own root.
	programPath = "/run/vm/guest"
	jobPath     = "/run/vm/job.json"
)

func main() {
	switch {
	case os.Getpid() == 1:
		if err := boot(); err != nil {
			fmt.Fprintln(os.Stderr, "init:", err)
			reportFailure(err)
		}
		powerOff()
	case len(os.Args) == 2 && os.Args[1] == "job":
		if err := runJob(); err != nil {
			fmt.Fprintln(os.Stderr, "job:", err)
			reportFailure(err)
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "this program is init in a virtual machine, and of no use elsewhere")
		os.Exit(2)
	}
}

// boot returns only if something has gone wrong, or after the job if this
// program stays PID 1.
func boot() error {
	if err := mountKernelFilesystems(); err != nil {
		return err
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	job, err := wire.ReceiveJob(port)
	// The job's process opens the port anew: only one can have it open.
	if err := errors.Join(err, port.Close()); err != nil {
		return err
	}
	if err := makeRoot(job); err != nil {
		return err
	}
	if err := prepareRoot(job); err != nil {
		return err
	}
	if job.Systemd {
		return startSystemd(job)
	}
	return startJob()
}

// startJob runs the job in a child and reaps whatever is orphaned meanwhile.
func startJob() error {
	process, err := os.StartProcess(programPath, []string{programPath, "job"}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("start job: %w", err)
	}
	for {
		pid, err := syscall.Wait4(-1, nil, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("wait for processes: %w", err)
		case pid == process.Pid:
			return nil
		}
	}
}

// reportFailure tells the host, if there is a port yet. If not, the host has
// the console.
func reportFailure(err error) {
	port, openErr := openPort()
	if openErr != nil {
		return
	}
	defer port.Close()
	// The machine goes down next, whether the host has heard it or not.
	_ = wire.Write(port, wire.KindFailed, []byte(err.Error()))
	time.Sleep(time.Second)
}

func powerOff() {
	syscall.Sync()
	// The runner forbids reboots, so that this ends the machine even where ACPI
	// is missing.
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
}
