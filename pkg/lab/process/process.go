// Package process names processes so that they can be recorded in a file, found again by another
// process and ended, without ever touching a stranger that was given the same number later.
//
// Every wait is bounded by its context and woken by the kernel; nothing polls. The functions may be
// called concurrently.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Identity is a process: its number and when it started, in the kernel's ticks since boot. The zero
// Identity names none.
type Identity struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// ErrGone says that the process is not running any more.
var ErrGone = errors.New("the process is not running")

// Identify returns the identity of the process that has this number now, or ErrGone. A process that has
// ended counts as gone even while its parent has not collected it.
func Identify(pid int) (Identity, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return Identity{}, ErrGone
	}
	if err != nil {
		return Identity{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	// The name of the command stands in parentheses and may hold anything; the fields begin after it.
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const stateField, startField = 0, 19
	if len(fields) <= startField {
		return Identity{}, fmt.Errorf("identify process %d: %d fields in its stat file", pid, len(fields))
	}
	if state := fields[stateField]; state == "Z" || state == "X" {
		return Identity{}, ErrGone
	}
	start, err := strconv.ParseUint(fields[startField], 10, 64)
	if err != nil {
		return Identity{}, fmt.Errorf("identify process %d: start time: %w", pid, err)
	}
	return Identity{PID: pid, Start: start}, nil
}

// Alive says whether the process still runs.
func (id Identity) Alive() bool {
	if id.PID <= 0 {
		return false
	}
	now, err := Identify(id.PID)
	return err == nil && now == id
}

// open returns a descriptor that stands for this very process, or ErrGone.
func (id Identity) open() (*os.File, error) {
	if id.PID <= 0 {
		return nil, ErrGone
	}
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", id.PID, err)
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	// Only after the descriptor is held is the comparison good for as long as it is held.
	if !id.Alive() {
		return nil, errors.Join(ErrGone, file.Close())
	}
	return file, nil
}

// Signal sends a signal, or returns ErrGone.
func (id Identity) Signal(signal unix.Signal) error {
	file, err := id.open()
	if err != nil {
		return err
	}
	err = unix.PidfdSendSignal(int(file.Fd()), signal, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		err = ErrGone
	}
	return errors.Join(err, file.Close())
}

// Wait returns nil once the process has ended. If it was a child of this process, it is collected.
func (id Identity) Wait(ctx context.Context) error {
	defer id.collect()
	file, err := id.open()
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	err = waitReadable(ctx, file)
	if err != nil {
		err = fmt.Errorf("wait for process %d to end: %w", id.PID, err)
	}
	return errors.Join(err, file.Close())
}

// Kill ends the process at once and waits until it is gone. That it was gone already is no error.
func (id Identity) Kill(ctx context.Context) error { return id.end(ctx, unix.SIGKILL) }

// Stop asks the process to end, waits as long as ctx allows, and says if it did not.
func (id Identity) Stop(ctx context.Context) error { return id.end(ctx, unix.SIGTERM) }

func (id Identity) end(ctx context.Context, signal unix.Signal) error {
	if err := id.Signal(signal); err != nil && !errors.Is(err, ErrGone) {
		return fmt.Errorf("end process %d: %w", id.PID, err)
	}
	return id.Wait(ctx)
}

// collect takes the exit status from the kernel if the process was our child; for others it does nothing.
func (id Identity) collect() {
	if id.PID <= 0 || id.Alive() {
		return
	}
	var status unix.WaitStatus
	_, _ = unix.Wait4(id.PID, &status, unix.WNOHANG, nil)
}

// waitReadable returns when the kernel says that file is readable, which for a process means its end.
func waitReadable(ctx context.Context, file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		// It fails only on a closed file, and then nobody waits.
		_ = file.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			failed = err
			return true
		}
		return n > 0
	})
	if ctx.Err() != nil && err != nil {
		return ctx.Err()
	}
	return errors.Join(err, failed)
}
