package process

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// InNamespaceOf returns the process that the members of first's process namespace know by this number,
// or ErrGone.
func InNamespaceOf(first Identity, number int) (Identity, error) {
	namespace, err := namespaceOf(first.PID)
	if err != nil {
		return Identity{}, fmt.Errorf("process namespace of %d: %w", first.PID, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return Identity{}, fmt.Errorf("list the processes: %w", err)
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		id, err := Identify(pid)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return Identity{}, err
		}
		// A process that ends while it is looked at is not the one, or is gone.
		if its, err := namespaceOf(pid); err != nil || its != namespace {
			continue
		}
		if innerNumber(pid) == number && id.Alive() {
			return id, nil
		}
	}
	return Identity{}, fmt.Errorf("process %d of the namespace of %d: %w", number, first.PID, ErrGone)
}

func namespaceOf(pid int) (string, error) {
	return os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/pid")
}

// innerNumber returns the number by which a process is known in its own namespace, 0 if it cannot be told.
func innerNumber(pid int) int {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(numbers)
			if len(fields) == 0 {
				return 0
			}
			number, err := strconv.Atoi(fields[len(fields)-1])
			if err != nil {
				return 0
			}
			return number
		}
	}
	return 0
}
