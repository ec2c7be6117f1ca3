package libvirt_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// sliceOffset is where the backing image begins in the file that holds it.
const sliceOffset = 3 << 20

func overlayOverASliceRunsAndIsPulledToStandAlone(t *testing.T, w *world) {
	base := filepath.Join(w.dir, "base.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", base, "64M")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 5 8M 1M", base)
	image, err := os.ReadFile(base)
	must(t, err)
	store := filepath.Join(w.dir, "vda.store")
	must(t, os.WriteFile(store, append(make([]byte, sliceOffset), image...), 0o644))
	overlay := filepath.Join(w.dir, "overlay.qcow2")
	must(t, w.h.CreateOverlay(t.Context(), overlay, 64<<20))

	backing := fmt.Sprintf(`<backingStore type='file'><format type='qcow2'/><source file='%s'><slices>`+
		`<slice type='storage' offset='%d' size='%d'/></slices></source><backingStore/></backingStore>`, store, sliceOffset, len(image))
	w.define(t, "shadowed", serverXML("shadowed", diskXML("vda", "qcow2", overlay, backing)))
	must(t, w.h.Start(t.Context(), "shadowed"))
	w.GuestWrites(t, "shadowed", "vda", 6, 9<<20, 1<<20)
	wantBacked(t, w, true)

	for range 2 {
		if err := w.h.PullStart(t.Context(), "shadowed", "vda"); err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, err := w.h.PullStatus(t.Context(), "shadowed", "vda")
		if err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
			t.Fatal(err)
		}
		backed, backedErr := w.h.Backed(t.Context(), "shadowed", "vda")
		must(t, backedErr)
		if err != nil && !backed {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the pull does not end")
		}
	}
	// Without Suspend the crash would lose everything that was pulled, and the overlay would read as zeros.
	must(t, w.h.Suspend(t.Context(), "shadowed"))
	must(t, w.h.Resume(t.Context(), "shadowed"))
	w.Crash(t, "shadowed")
	must(t, os.Remove(store))
	must(t, w.h.Start(t.Context(), "shadowed"))
	wantBacked(t, w, false)
	must(t, w.h.Destroy(t.Context(), "shadowed"))

	if chain := run(t, "qemu-img", "info", "--backing-chain", overlay); strings.Contains(chain, "backing file") {
		t.Errorf("the overlay still names a backing file: %s", chain)
	}
	run(t, "qemu-io", "-r", "-f", "qcow2", "-c", "read -P 5 8M 1M", "-c", "read -P 6 9M 1M", "-c", "read -P 0 10M 54M", overlay)
}

func wantBacked(t *testing.T, w *world, want bool) {
	t.Helper()
	backed, err := w.h.Backed(t.Context(), "shadowed", "vda")
	must(t, err)
	if backed != want {
		t.Fatalf("the disk has a backing file: %v, want %v", backed, want)
	}
}
