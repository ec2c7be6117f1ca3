package libvirt_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sliceOffset is where the backing image begins in the file that holds it.
const sliceOffset = 3 << 20

func overlayOverASliceRunsAndIsCopiedToStandAlone(t *testing.T, w *world) {
	base := filepath.Join(w.dir, "base.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", base, "64M")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 5 8M 1M", base)
	image, err := os.ReadFile(base)
	must(t, err)
	store := filepath.Join(w.dir, "vda.store")
	must(t, os.WriteFile(store, append(make([]byte, sliceOffset), image...), 0o644))
	overlay, alone := filepath.Join(w.dir, "overlay.qcow2"), filepath.Join(w.dir, "alone.qcow2")
	must(t, w.h.CreateImage(t.Context(), overlay, 64<<20))
	must(t, w.h.CreateImage(t.Context(), alone, 64<<20))

	backing := fmt.Sprintf(`<backingStore type='file'><format type='qcow2'/><source file='%s'><slices>`+
		`<slice type='storage' offset='%d' size='%d'/></slices></source><backingStore/></backingStore>`, store, sliceOffset, len(image))
	w.define(t, "shadowed", serverXML("shadowed", diskXML("vda", "qcow2", overlay, backing)))
	must(t, w.h.Start(t.Context(), "shadowed"))
	w.GuestWrites(t, "shadowed", "vda", 6, 9<<20, 1<<20)

	must(t, w.h.CopyStart(t.Context(), "shadowed", "vda", alone))
	w.GuestWrites(t, "shadowed", "vda", 7, 10<<20, 1<<20)
	for deadline := time.Now().Add(20 * time.Second); ; {
		job, err := w.h.CopyStatus(t.Context(), "shadowed", "vda")
		must(t, err)
		if job.Complete {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the copy does not become complete")
		}
	}
	w.GuestWrites(t, "shadowed", "vda", 8, 11<<20, 1<<20)
	must(t, w.h.Suspend(t.Context(), "shadowed"))
	must(t, w.h.CopySwitch(t.Context(), "shadowed", "vda"))
	// Whenever it crashes from here on, the copy holds everything, and the definition names it.
	w.Crash(t, "shadowed")
	must(t, os.Remove(store))
	must(t, os.Remove(overlay))
	must(t, w.h.Start(t.Context(), "shadowed"))
	must(t, w.h.Destroy(t.Context(), "shadowed"))

	if chain := run(t, "qemu-img", "info", "--backing-chain", alone); strings.Contains(chain, "backing file") {
		t.Errorf("the copy names a backing file: %s", chain)
	}
	run(t, "qemu-io", "-r", "-f", "qcow2", "-c", "read -P 5 8M 1M", "-c", "read -P 6 9M 1M", "-c", "read -P 7 10M 1M", "-c", "read -P 8 11M 1M",
		"-c", "read -P 0 12M 52M", alone)
}
