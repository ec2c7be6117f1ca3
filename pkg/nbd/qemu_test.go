package nbd

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
)

const (
	qemuSize   = 64 << 20
	qemuBitmap = "qemu:dirty-bitmap:b0"
	allocation = "base:allocation"
)

// startQemuWithBitmap serves an image with 3 MiB of data, of which the second half was written after the bitmap began.
// A megabyte in the middle of what is dirty was made zero.
func startQemuWithBitmap(t *testing.T) string {
	t.Helper()
	image := filepath.Join(shortTempDir(t), "disk.qcow2")
	runTool(t, "qemu-img", "create", "-q", "-f", "qcow2", image, "64M")
	runTool(t, "qemu-io", "-c", "write -P 0x11 1M 2M", image)
	runTool(t, "qemu-img", "bitmap", "--add", "-g", "65536", image, "b0")
	runTool(t, "qemu-io", "-c", "write -P 0x22 8M 1M", "-c", "write -z -u 9M 1M", "-c", "write -P 0x33 10M 65536",
		"-c", "write -P 0x44 67043328 512", image)
	return startQemuNbd(t, "-r", "-f", "qcow2", "-B", "b0", image)
}

func extentsOf(t *testing.T, c *Client, name string, off, length uint64) []Extent {
	t.Helper()
	var extents []Extent
	err := c.BlockStatus(context.Background(), name, off, length, func(e Extent) error {
		extents = append(extents, e)
		return nil
	})
	if err != nil {
		t.Fatalf("block status of %s: %v", name, err)
	}
	return extents
}

func TestQemuTellsWhatIsDirtyAndWhatIsAllocated(t *testing.T) {
	c := dialSocket(t, startQemuWithBitmap(t), Config{MetaContexts: []string{allocation, qemuBitmap, "qemu:dirty-bitmap:none"}})
	if c.Size() != qemuSize || !c.HasContext(allocation) || !c.HasContext(qemuBitmap) || c.HasContext("qemu:dirty-bitmap:none") {
		t.Fatalf("size %d, contexts %v", c.Size(), c.export.contexts)
	}
	const mib = 1 << 20
	wantDirty := []Extent{
		{0, 8 * mib, 0},
		{8 * mib, 2*mib + 65536, StateDirty},
		{10*mib + 65536, 67043328 - 10*mib - 65536, 0},
		{67043328, 65536, StateDirty},
	}
	if got := extentsOf(t, c, qemuBitmap, 0, qemuSize); !slices.Equal(got, wantDirty) {
		t.Errorf("dirty: %+v", got)
	}
	wantAllocated := []Extent{
		{0, mib, StateHole | StateZero},
		{mib, 2 * mib, 0},
		{3 * mib, 5 * mib, StateHole | StateZero},
		{8 * mib, mib, 0},
		{9 * mib, mib, StateHole | StateZero},
		{10 * mib, 65536, 0},
		{10*mib + 65536, 67043328 - 10*mib - 65536, StateHole | StateZero},
		{67043328, 65536, 0},
	}
	if got := extentsOf(t, c, allocation, 0, qemuSize); !slices.Equal(got, wantAllocated) {
		t.Errorf("allocated: %+v", got)
	}
	if got := extentsOf(t, c, qemuBitmap, 8*mib+512, 1024); !slices.Equal(got, []Extent{{8*mib + 512, 1024, StateDirty}}) {
		t.Errorf("part of an extent: %+v", got)
	}
}

func TestSeveralContextsAreWalkedSideBySide(t *testing.T) {
	c := dialSocket(t, startQemuWithBitmap(t), Config{MetaContexts: []string{allocation, qemuBitmap}})
	dirtyData, dirtyZero, at := uint64(0), uint64(0), uint64(0)
	err := c.BlockStatuses(context.Background(), []string{qemuBitmap, allocation}, 0, c.Size(),
		func(off, length uint64, flags []uint32) error {
			if off != at {
				t.Errorf("gap before %d", off)
			}
			at = off + length
			switch {
			case flags[0]&StateDirty == 0:
			case flags[1]&StateZero != 0:
				dirtyZero += length
			default:
				dirtyData += length
			}
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	if at != c.Size() || dirtyData != 1<<20+2*65536 || dirtyZero != 1<<20 {
		t.Errorf("walked to %d, dirty data %d, dirty zero %d", at, dirtyData, dirtyZero)
	}
}

func TestAnErrorOfTheCallersFunctionEndsTheWalk(t *testing.T) {
	c := dialSocket(t, startQemuWithBitmap(t), Config{MetaContexts: []string{allocation}})
	enough, calls := errors.New("enough"), 0
	err := c.BlockStatus(context.Background(), allocation, 0, c.Size(), func(Extent) error {
		calls++
		return enough
	})
	if !errors.Is(err, enough) || calls != 1 {
		t.Errorf("got %v after %d calls", err, calls)
	}
}

func TestQemuReadsWhatWasWritten(t *testing.T) {
	c := dialSocket(t, startQemuWithBitmap(t), Config{})
	p := bytes.Repeat([]byte{0xAA}, qemuSize) // two of the largest reads
	if err := c.ReadAt(context.Background(), p, 0); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, qemuSize)
	for _, w := range []struct{ off, length, fill int }{{1 << 20, 2 << 20, 0x11}, {8 << 20, 1 << 20, 0x22}, {10 << 20, 65536, 0x33}, {67043328, 512, 0x44}} {
		copy(want[w.off:], bytes.Repeat([]byte{byte(w.fill)}, w.length))
	}
	if !bytes.Equal(p, want) {
		t.Error("wrong bytes")
	}
}

func TestAnUnknownExportOfQemuIsToldApart(t *testing.T) {
	_, err := Dial(context.Background(), Config{Network: "unix", Address: startQemuWithBitmap(t), Export: "other"})
	var refusal *NegotiationError
	if !errors.As(err, &refusal) || refusal.Code != NegotiationUnknown {
		t.Errorf("got %v, want NegotiationUnknown", err)
	}
}
