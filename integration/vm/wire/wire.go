// SPDX-License-Identifier: Apache-2.0

// Package wire is what the two sides of a virtual machine say to each other:
// the runner on the host, and the program that is init in the guest.
//
// All of it goes over one virtio-serial port as frames: a kind, a length, a
// payload. One ordered stream means that an exit status cannot overtake the
// output that came before it. The package uses the standard library alone, as
// it is compiled into the guest without a module cache.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// PortName is the name of the virtio-serial port.
const PortName = "vm.frames"

// HostTag is the 9p mount tag of the host's root.
const HostTag = "host"

// Kind says what a frame holds.
type Kind byte

// The kinds of frames.
const (
	// KindJob is the first frame, host to guest: a [Job] as JSON.
	KindJob Kind = iota + 1
	// KindSignal goes from host to guest: one byte, a signal for the command.
	KindSignal
	// KindStarted says that the command runs. It is empty.
	KindStarted
	// KindStdout is output of the command.
	KindStdout
	// KindStderr is error output of the command.
	KindStderr
	// KindExit is the last frame: one byte, the exit code.
	KindExit
	// KindFailed is the last frame if the guest could not be set up: the reason.
	KindFailed
)

// MaxPayload is the longest payload, in bytes.
const MaxPayload = 1 << 20

const headerSize = 5

// errTooLong means a payload above [MaxPayload].
var errTooLong = errors.New("payload too long")

// Write sends one frame, in one call of w.Write.
func Write(w io.Writer, kind Kind, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("send %d bytes: %w", len(payload), errTooLong)
	}
	frame := make([]byte, headerSize, headerSize+len(payload))
	frame[0] = byte(kind)
	binary.BigEndian.PutUint32(frame[1:], uint32(len(payload)))
	if _, err := w.Write(append(frame, payload...)); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

// Read receives one frame. At the end of the stream it returns io.EOF.
func Read(r io.Reader) (Kind, []byte, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(header[1:])
	if length > MaxPayload {
		return 0, nil, fmt.Errorf("receive %d bytes: %w", length, errTooLong)
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, fmt.Errorf("receive frame: %w", errors.Join(io.ErrUnexpectedEOF, err))
	}
	return Kind(header[0]), payload, nil
}

// Job is what the guest is to do.
type Job struct {
	// Argv is the command. Its first word is searched in the PATH of Env.
	Argv []string
	// Env is its whole environment.
	Env []string
	// Dir is its working directory.
	Dir string
	// Cgroup is "v2" or "v1".
	Cgroup string
	// Systemd makes systemd PID 1 and runs the command as one of its services.
	Systemd bool
	// Shares are the directories in which the guest's writes reach the host.
	Shares []Share
	// Release is the kernel's, as in uname -r.
	Release string
	// Modules is the directory on the host that holds its modules.
	Modules string
	// Busybox is the path of a static busybox on the host.
	Busybox string
}

// Share is a directory that the guest may write to.
type Share struct {
	// Tag is the 9p mount tag.
	Tag string
	// Path is where it is, on the host and in the guest.
	Path string
}

// SendJob sends the first frame.
func SendJob(w io.Writer, job Job) error {
	text, err := json.Marshal(job)
	if err != nil {
		return fmt.Errorf("encode job: %w", err)
	}
	return Write(w, KindJob, text)
}

// ReceiveJob receives the first frame.
func ReceiveJob(r io.Reader) (Job, error) {
	kind, payload, err := Read(r)
	if err != nil {
		return Job{}, fmt.Errorf("receive job: %w", err)
	}
	if kind != KindJob {
		return Job{}, fmt.Errorf("receive job: got frame of kind %d", kind)
	}
	var job Job
	if err := json.Unmarshal(payload, &job); err != nil {
		return Job{}, fmt.Errorf("decode job: %w", err)
	}
	return job, nil
}
