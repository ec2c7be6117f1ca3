package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// settings are what the kernel's command line asks for.
type settings struct {
	rate     uint64 // records a second
	announce uint64 // one announcement for so many records
	address  netip.Prefix
	measure  bool // write without a pause and say how long each write takes, instead of keeping a rate
}

func parseSettings(line string) (settings, error) {
	s := settings{rate: 25, announce: 1}
	for _, word := range strings.Fields(line) {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "umbra.rate":
			s.rate, err = strconv.ParseUint(value, 10, 32)
		case "umbra.announce":
			s.announce, err = strconv.ParseUint(value, 10, 32)
		case "umbra.address":
			s.address, err = netip.ParsePrefix(value)
		case "umbra.measure":
			s.measure, err = strconv.ParseBool(value)
		}
		if err != nil {
			return settings{}, fmt.Errorf("kernel command line, %s: %w", word, err)
		}
	}
	s.announce = max(1, s.announce)
	return s, nil
}
