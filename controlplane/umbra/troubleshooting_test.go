package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestEveryReasonIsInTheTroubleshootingPageOnce(t *testing.T) {
	text, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string]int{}
	for _, entry := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| .+ \\| .+ \\|$").FindAllStringSubmatch(string(text), -1) {
		entries[entry[1]]++
	}
	for number, name := range umbrav1.ErrorReason_name {
		reason := strings.TrimPrefix(name, "ERROR_REASON_")
		if number != 0 && entries[reason] != 1 {
			t.Errorf("%s has %d entries", reason, entries[reason])
		}
		delete(entries, reason)
	}
	for reason := range entries {
		t.Errorf("%s is no reason", reason)
	}
}
