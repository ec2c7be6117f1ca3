package main

import (
	"fmt"

	"github.com/prometheus/procfs"
)

// processorOf is how many seconds of the processors a running process has used.
func processorOf(pid int) (float64, error) {
	process, err := procfs.NewProc(pid)
	if err != nil {
		return 0, fmt.Errorf("find process %d: %w", pid, err)
	}
	stat, err := process.Stat()
	if err != nil {
		return 0, fmt.Errorf("the processor time of process %d: %w", pid, err)
	}
	return stat.CPUTime(), nil
}

// memoryOf is a running process's proportional set size in bytes: a page that several processes have counts in parts.
func memoryOf(pid int) (float64, error) {
	process, err := procfs.NewProc(pid)
	if err != nil {
		return 0, fmt.Errorf("find process %d: %w", pid, err)
	}
	maps, err := process.ProcSMapsRollup()
	if err != nil {
		return 0, fmt.Errorf("the memory of process %d: %w", pid, err)
	}
	return float64(maps.Pss), nil
}
