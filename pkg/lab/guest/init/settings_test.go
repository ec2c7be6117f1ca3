package main

import (
	"net/netip"
	"testing"
)

func TestSettingsComeFromTheKernelsCommandLine(t *testing.T) {
	got, err := parseSettings("BOOT_IMAGE=vmlinuz quiet umbra.rate=50 umbra.announce=10 umbra.address=198.19.0.10/24 umbra.measure=1 initrd=initrd\n")
	want := settings{rate: 50, announce: 10, address: netip.MustParsePrefix("198.19.0.10/24"), measure: true}
	if err != nil || got != want {
		t.Fatalf("%+v, %v, want %+v", got, err, want)
	}
}

func TestSettingsThatAreNotGivenHaveDefaults(t *testing.T) {
	got, err := parseSettings("quiet")
	if err != nil || got != (settings{rate: 25, announce: 1}) {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestSettingsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, line := range []string{"umbra.rate=fast", "umbra.announce=-1", "umbra.address=198.19.0.10", "umbra.measure=much"} {
		if got, err := parseSettings(line); err == nil {
			t.Errorf("%s became %+v", line, got)
		}
	}
}
