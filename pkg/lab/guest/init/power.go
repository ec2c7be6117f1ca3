package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
)

var errPowerButton = errors.New("the power button was pressed")

// An input event is two machine words of time, a kind, a code and a value.
const (
	inputEventBytes = 24
	inputKindKey    = 1
	inputCodePower  = 116
)

// watchPowerButton calls cancel when any input device reports the power key. Its goroutines end with
// the guest.
func watchPowerButton(cancel context.CancelCauseFunc) {
	devices, err := filepath.Glob("/dev/input/event*")
	if err != nil {
		return // the pattern is a constant
	}
	for _, device := range devices {
		file, err := os.Open(device)
		if err != nil {
			continue
		}
		go func() {
			event := make([]byte, inputEventBytes)
			for {
				if _, err := io.ReadFull(file, event); err != nil {
					return
				}
				kind := binary.LittleEndian.Uint16(event[16:])
				code := binary.LittleEndian.Uint16(event[18:])
				value := binary.LittleEndian.Uint32(event[20:])
				if kind == inputKindKey && code == inputCodePower && value == 1 {
					cancel(errPowerButton)
				}
			}
		}()
	}
}
