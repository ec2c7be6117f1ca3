package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/umbra-dr/umbra/pkg/lab/ledger"
)

// memory is a disk that forgets nothing and needs no flush.
type memory struct{ bytes []byte }

func (m *memory) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(m.bytes).ReadAt(p, at)
}
func (m *memory) WriteAt(p []byte, at int64) (int, error) { return copy(m.bytes[at:], p), nil }
func (m *memory) Sync() error                             { return nil }

var anID = ledger.ID{1, 2, 3}

type fixture struct {
	disks       []*memory
	recordBytes int
	slots       int // of each disk
	writer      *ledger.Writer
}

type fataler interface {
	Helper()
	Fatal(args ...any)
}

func newFixture(t fataler, disks, slots, recordBytes int) *fixture {
	t.Helper()
	f := &fixture{recordBytes: recordBytes, slots: slots}
	size := int64(ledger.BlockBytes + slots*recordBytes)
	var areas []io.WriterAt
	var sizes []int64
	var written []ledger.Disk
	for range disks {
		disk := &memory{bytes: make([]byte, size)}
		f.disks = append(f.disks, disk)
		areas, sizes, written = append(areas, disk), append(sizes, size), append(written, disk)
	}
	if err := ledger.Format(areas, sizes, anID, recordBytes); err != nil {
		t.Fatal(err)
	}
	writer, err := ledger.NewWriter(written, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.writer = writer
	return f
}

func (f *fixture) ring() int { return len(f.disks) * f.slots }

func (f *fixture) write(t fataler, from, to int) {
	t.Helper()
	for n := from; n <= to; n++ {
		if err := f.writer.Write(uint64(n)); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *fixture) verify(t fataler) ledger.Report {
	t.Helper()
	readers := make([]io.ReaderAt, len(f.disks))
	for i, disk := range f.disks {
		readers[i] = disk
	}
	report, err := ledger.Verify(readers, nil)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func (f *fixture) snapshot() [][]byte {
	var taken [][]byte
	for _, disk := range f.disks {
		taken = append(taken, bytes.Clone(disk.bytes))
	}
	return taken
}

// changed returns the disk and the range of bytes that the writing of record n changes.
func (f *fixture) changed(t fataler, n int) (disk, from, to int) {
	t.Helper()
	before := f.snapshot()
	f.write(t, n, n)
	for i := range before {
		for at := ledger.BlockBytes; at < len(before[i]); at += f.recordBytes {
			if !bytes.Equal(before[i][at:at+f.recordBytes], f.disks[i].bytes[at:at+f.recordBytes]) {
				return i, at, at + f.recordBytes
			}
		}
	}
	t.Fatal(fmt.Sprintf("record %d changed nothing", n))
	return 0, 0, 0
}

func drawFixture(t *rapid.T) *fixture {
	return newFixture(t, rapid.IntRange(1, 3).Draw(t, "disks"), rapid.IntRange(3, 40).Draw(t, "slots"),
		ledger.BlockBytes*rapid.IntRange(1, 3).Draw(t, "blocks"))
}

func TestWhateverWasWrittenIsFoundWholeBeforeAndAfterTheRingIsFull(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFixture(t)
		last := rapid.IntRange(0, 3*f.ring()).Draw(t, "last")
		f.write(t, 1, last)
		report := f.verify(t)
		if !report.Intact() || report.Torn || report.Last != uint64(last) || report.Ring != uint64(f.ring()) || report.ID != anID {
			t.Fatalf("after %d records: %+v", last, report)
		}
	})
}

func TestAnyByteDamagedInARecordThatMustBeThereIsNoticed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFixture(t)
		last := rapid.IntRange(2, 3*f.ring()).Draw(t, "last")
		// The last itself is left out: without it, its predecessor is the last and all is well.
		victim := rapid.IntRange(max(1, last-f.ring()+2), last-1).Draw(t, "victim")
		f.write(t, 1, victim-1)
		disk, from, to := f.changed(t, victim)
		f.write(t, victim+1, last)
		at := rapid.IntRange(from, to-1).Draw(t, "at")
		f.disks[disk].bytes[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		report := f.verify(t)
		if report.BadChecksums != 1 || report.FirstBad != uint64(victim) || report.Last != uint64(last) {
			t.Fatalf("byte %d of record %d damaged: %+v", at-from, victim, report)
		}
	})
}

func TestARecordThatWasLostIsAGapWhateverItsSlotHeldBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFixture(t)
		last := rapid.IntRange(2, 3*f.ring()).Draw(t, "last")
		victim := rapid.IntRange(max(1, last-f.ring()+2), last-1).Draw(t, "victim")
		f.write(t, 1, victim-1)
		before := f.snapshot()
		disk, from, to := f.changed(t, victim)
		copy(f.disks[disk].bytes[from:to], before[disk][from:to])
		f.write(t, victim+1, last)
		report := f.verify(t)
		if report.Gaps != 1 || report.FirstGap != uint64(victim) || report.BadChecksums != 0 {
			t.Fatalf("record %d of %d lost: %+v", victim, last, report)
		}
	})
}

func TestAWriteThatTheCrashTearsCountsNeitherAsDamageNorAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFixture(t)
		last := rapid.IntRange(0, 3*f.ring()).Draw(t, "last")
		f.write(t, 1, last)
		before := f.snapshot()
		disk, from, to := f.changed(t, last+1)
		cut := rapid.IntRange(from+100, to-100).Draw(t, "cut")
		copy(f.disks[disk].bytes[cut:to], before[disk][cut:to])
		report := f.verify(t)
		if !report.Intact() || !report.Torn || report.Last != uint64(last) {
			t.Fatalf("record %d torn at byte %d: %+v", last+1, cut-from, report)
		}
	})
}

func TestDisksTakenAtDifferentMomentsShowAGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFixture(t, 2, rapid.IntRange(6, 40).Draw(t, "slots"), ledger.BlockBytes)
		then := rapid.IntRange(1, 3*f.ring()).Draw(t, "then")
		f.write(t, 1, then)
		older := f.snapshot()
		f.write(t, then+1, then+rapid.IntRange(3, f.slots).Draw(t, "later"))
		stale := rapid.IntRange(0, 1).Draw(t, "stale")
		copy(f.disks[stale].bytes, older[stale])
		if report := f.verify(t); report.Gaps == 0 {
			t.Fatalf("disk %d is older than the other: %+v", stale, report)
		}
	})
}

func TestRecordsOfAnotherLedgerAreDamage(t *testing.T) {
	f := newFixture(t, 1, 8, ledger.BlockBytes)
	other := newFixture(t, 1, 8, ledger.BlockBytes)
	if err := ledger.Format([]io.WriterAt{other.disks[0]}, []int64{int64(len(other.disks[0].bytes))}, ledger.ID{9}, ledger.BlockBytes); err != nil {
		t.Fatal(err)
	}
	f.write(t, 1, 5)
	theirs, err := ledger.NewWriter([]ledger.Disk{other.disks[0]}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(3) {
		if err := theirs.Write(n + 1); err != nil {
			t.Fatal(err)
		}
	}
	_, from, to := f.changed(t, 6)
	f.write(t, 7, 7)
	copy(f.disks[0].bytes[from:to], other.disks[0].bytes[ledger.BlockBytes:])
	if report := f.verify(t); report.BadChecksums != 1 {
		t.Fatalf("%+v", report)
	}
}

func TestRecordsLieFarApart(t *testing.T) {
	f := newFixture(t, 1, 1000, ledger.BlockBytes)
	_, before, _ := f.changed(t, 1)
	for n := 2; n <= 100; n++ {
		_, at, _ := f.changed(t, n)
		if distance := max(at-before, before-at); distance < 64<<10 {
			t.Fatalf("records %d and %d lie %d bytes apart", n-1, n, distance)
		}
		before = at
	}
}

func TestDisksThatAreNotOneLedgerAreRefused(t *testing.T) {
	f, other := newFixture(t, 2, 8, ledger.BlockBytes), newFixture(t, 2, 9, ledger.BlockBytes)
	blank := &memory{bytes: make([]byte, len(f.disks[0].bytes))}
	damaged := &memory{bytes: bytes.Clone(f.disks[0].bytes)}
	damaged.bytes[40]++
	for name, test := range map[string]struct {
		areas []io.ReaderAt
		want  error
	}{
		"one is missing":   {[]io.ReaderAt{f.disks[0]}, ledger.ErrForeignDisk},
		"exchanged":        {[]io.ReaderAt{f.disks[1], f.disks[0]}, ledger.ErrForeignDisk},
		"of two ledgers":   {[]io.ReaderAt{f.disks[0], other.disks[1]}, ledger.ErrForeignDisk},
		"blank":            {[]io.ReaderAt{blank, f.disks[1]}, ledger.ErrNoLedger},
		"a damaged header": {[]io.ReaderAt{damaged, f.disks[1]}, ledger.ErrDamagedHeader},
		"none":             {nil, ledger.ErrForeignDisk},
	} {
		if _, err := ledger.Verify(test.areas, nil); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

func TestConsoleTellsEachBootAndTheLastRecordSince(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		report := ledger.Report{
			ID: anID, Disks: 2, Ring: 100, Last: rapid.Uint64Range(0, 1<<40).Draw(t, "last"),
			Gaps: rapid.IntRange(0, 9).Draw(t, "gaps"), BadChecksums: rapid.IntRange(0, 9).Draw(t, "bad"), Torn: rapid.Bool().Draw(t, "torn"),
		}
		log := "SeaBIOS\r\n" + ledger.Record(3) + "\r\n\x1b[2J" + report.Boot() + "\r\n" +
			ledger.Record(report.Last+1) + "\r\nUMBRA-LEDGER nonsense\r\n" + ledger.Record(report.Last+2) + "\r\n"
		told := ledger.ReadConsole(log + ledger.Record(report.Last+3))
		if len(told.Boots) != 1 || told.Boots[0] != report || told.Last != report.Last+2 {
			t.Fatalf("read %+v", told)
		}
	})
}

func TestALineThatIsNotCompleteIsNotBelieved(t *testing.T) {
	if told := ledger.ReadConsole("UMBRA-LEDGER record 1\r\nUMBRA-LEDGER record 12"); told.Last != 1 {
		t.Fatalf("last %d, want 1: the second line may still grow", told.Last)
	}
}

func FuzzVerifyNeverFailsOnDamage(f *testing.F) {
	f.Add([]byte("garbage"), 5000)
	f.Fuzz(func(t *testing.T, garbage []byte, at int) {
		x := newFixture(t, 1, 4, ledger.BlockBytes)
		x.write(t, 1, 3)
		if at < ledger.BlockBytes || at >= len(x.disks[0].bytes) {
			return
		}
		copy(x.disks[0].bytes[at:], garbage)
		if report := x.verify(t); report.Last > 4 {
			t.Fatalf("garbage became record %d", report.Last)
		}
	})
}

func FuzzReadConsole(f *testing.F) {
	f.Add(ledger.Report{Last: 7}.Boot() + "\n" + ledger.Record(8) + "\n")
	f.Fuzz(func(t *testing.T, log string) {
		told := ledger.ReadConsole(log)
		if len(told.Boots) > strings.Count(log, "\n") {
			t.Fatal("more boots than lines")
		}
	})
}
