package shadowserver

import (
	"strings"
	"testing"
)

func TestImagesAreChangedUnderTheDisksOfTheAttemptAlone(t *testing.T) {
	def, err := define(goldenInput(t, "plain"))
	if err != nil {
		t.Fatal(err)
	}
	images, err := imagesOf(def.XML)
	if err != nil || len(images) < 2 {
		t.Fatalf("images %v, error %v", images, err)
	}
	put := func(i definedImages, xml string, wantChange bool) string {
		t.Helper()
		out, changed, err := i.put(xml)
		if err != nil || changed != wantChange {
			t.Fatalf("changed %v, error %v", changed, err)
		}
		return out
	}
	put(images, def.XML, false)
	moved := images.moved([]string{"vda", "vdz"})
	out := put(moved, def.XML, true)
	if strings.Contains(out, "vda.store") || !strings.Contains(out, "vda-standalone.qcow2") || !strings.Contains(out, "sda.store") {
		t.Errorf("with vda on its copy: %s", out)
	}
	put(moved, out, false)
	// What its user changes meanwhile is kept, and a disk that he has moved elsewhere is his.
	out = strings.Replace(out, "<name>shadow</name>", "<name>shadow</name><title>changed</title>", 1)
	back := put(images, out, true)
	if !strings.Contains(back, "<title>changed</title>") || !strings.Contains(back, "vda.store") || strings.Contains(back, "standalone") {
		t.Errorf("with vda on its overlay again: %s", back)
	}
	elsewhere := strings.Replace(out, images["vda"].path, "/elsewhere/vda.qcow2", 1)
	elsewhere = strings.Replace(elsewhere, moved["vda"].path, "/elsewhere/vda.qcow2", 1)
	put(images, elsewhere, false)
}
