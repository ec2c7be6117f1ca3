package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/umbra-dr/umbra/pkg/lab/ledger"
)

// alignedMemory returns pages of their own, as unbuffered reading and writing asks for.
func alignedMemory(size int) []byte {
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		// The guest has nothing else to do with its memory; without this it cannot work at all.
		fmt.Println(ledger.Prefix+"error allocate", size, "bytes:", err)
		powerOff()
	}
	return memory
}

// area is one disk or partition that holds a part of the ledger. It is open with O_DSYNC, so a write
// that has returned is durable.
type area struct{ *os.File }

func (area) Sync() error { return nil }

// findLedger opens every disk and partition that begins with the header of a ledger, in the ledger's
// order. The names of the devices do not matter: a failover may present them in another order.
func findLedger() ([]area, error) {
	names, err := filepath.Glob("/sys/class/block/*")
	if err != nil {
		return nil, fmt.Errorf("list the disks: %w", err)
	}
	type part struct {
		header ledger.Header
		area   area
	}
	var parts []part
	buffer := alignedMemory(ledger.BlockBytes)
	for _, name := range names {
		device := filepath.Join("/dev", filepath.Base(name))
		file, err := os.OpenFile(device, os.O_RDWR|unix.O_DIRECT|unix.O_DSYNC, 0)
		if err != nil {
			fmt.Println(ledger.Prefix + "passes over " + err.Error())
			continue
		}
		header, err := ledger.ReadHeader(file, buffer)
		if errors.Is(err, ledger.ErrNoLedger) {
			_ = file.Close() // read only so far
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", device, err)
		}
		parts = append(parts, part{header, area{file}})
	}
	sort.Slice(parts, func(i, j int) bool { return parts[i].header.Disk < parts[j].header.Disk })
	areas := make([]area, len(parts))
	for i := range parts {
		areas[i] = parts[i].area
	}
	return areas, nil
}
