package shadowserver

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChainsAreTakenAwayAndPutBackUnderTheDisksThatHadThem(t *testing.T) {
	def, err := define(goldenInput(t, "plain"))
	if err != nil {
		t.Fatal(err)
	}
	of, err := chainsOf(def.XML)
	if err != nil || len(of) != 2 {
		t.Fatalf("chains %v, error %v", of, err)
	}
	for path := range of {
		if strings.Contains(path, "sda") {
			delete(of, path)
		}
	}
	put := func(c chains, xml string, wantChange bool) string {
		t.Helper()
		out, changed, err := c.put(xml)
		if err != nil || changed != wantChange {
			t.Fatalf("changed %v, error %v", changed, err)
		}
		return out
	}
	put(of, def.XML, false)
	alone := put(of.alone(), def.XML, true)
	if strings.Contains(alone, "vda.store") || !strings.Contains(alone, "sda.store") {
		t.Errorf("stands alone: %s", alone)
	}
	put(of.alone(), alone, false)
	// What its user changes meanwhile is kept.
	alone = strings.Replace(alone, "<name>shadow</name>", "<name>shadow</name><title>changed</title>", 1)
	again := put(of, alone, true)
	want, err := chainsOf(def.XML)
	if err != nil {
		t.Fatal(err)
	}
	got, err := chainsOf(again)
	if diff := cmp.Diff(want, got); diff != "" || err != nil || !strings.Contains(again, "<title>changed</title>") {
		t.Errorf("put back (-want +got):\n%s\nerror %v, definition %s", diff, err, again)
	}
}
