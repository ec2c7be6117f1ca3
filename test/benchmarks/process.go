package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// ticksPerSecond is the unit of processor time in /proc, the same on every Linux that Go runs on.
const ticksPerSecond = 100

// processorOf is how many seconds of the processors a running process has used.
func processorOf(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in brackets, may hold anything. utime and stime are the 12th and 13th field after it.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks float64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return 0, fmt.Errorf("the processor time of process %d: %w", pid, err)
		}
		ticks += n
	}
	return ticks / ticksPerSecond, nil
}

var pss = regexp.MustCompile(`(?m)^Pss:\s+(\d+) kB$`)

// memoryOf is a running process's proportional set size in bytes: a page that several processes have counts in parts.
func memoryOf(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	found := pss.FindSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("process %d shows no proportional set size", pid)
	}
	kib, err := strconv.ParseFloat(string(found[1]), 64)
	return kib * 1024, err
}
