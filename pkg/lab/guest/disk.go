package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strings"

	"github.com/umbra-dr/umbra/pkg/lab/ledger"
)

// Format is how a disk's file is written.
type Format string

// Formats of a disk's file. Dirty bitmaps that survive a restart need qcow2.
const (
	Qcow2 Format = "qcow2"
	Raw   Format = "raw"
)

// Disks describes the disks of one guest. The first boots; each holds a part of one ledger.
type Disks struct {
	Paths  []string // files to make
	Sizes  []int64  // bytes of each, a multiple of 1 MiB
	Format Format   // "" means Qcow2

	ID          ledger.ID
	RecordBytes int      // 0 means one block
	Settings    []string // words for the kernel's command line, see the command init
}

// DiskBytesMin is the smallest disk that boots and has room for a ledger.
const DiskBytesMin = dataBegin + 8*MiB

// Areas returns the parts of a guest's disks, in their order, that hold its ledger. The disks are read as
// the guest sees them, so for qcow2 not the files themselves.
func Areas(disks ...io.ReaderAt) []io.ReaderAt {
	areas := make([]io.ReaderAt, len(disks))
	copy(areas, disks)
	if len(areas) > 0 {
		areas[0] = io.NewSectionReader(disks[0], dataBegin, math.MaxInt64-dataBegin)
	}
	return areas
}

// Make writes the disks. Files that are there already are replaced.
func (b Boot) Make(ctx context.Context, disks Disks) error {
	if disks.RecordBytes == 0 {
		disks.RecordBytes = ledger.BlockBytes
	}
	if disks.Format == "" {
		disks.Format = Qcow2
	}
	if len(disks.Paths) == 0 || len(disks.Paths) != len(disks.Sizes) {
		return fmt.Errorf("make the guest's disks: %d files and %d sizes", len(disks.Paths), len(disks.Sizes))
	}
	if disks.Sizes[0] < DiskBytesMin {
		return fmt.Errorf("make the guest's disks: the first has %d bytes, want at least %d", disks.Sizes[0], DiskBytesMin)
	}
	raws := make([]string, len(disks.Paths))
	for i, path := range disks.Paths {
		if disks.Sizes[i]%MiB != 0 {
			return fmt.Errorf("make the guest's disks: %d bytes is no multiple of 1 MiB", disks.Sizes[i])
		}
		raws[i] = path
		if disks.Format != Raw {
			raws[i] = path + ".making"
			defer func() { _ = os.Remove(raws[i]) }() // it is gone or of no use
		}
	}
	if err := b.writeRaw(ctx, disks, raws); err != nil {
		return fmt.Errorf("make the guest's disks: %w", err)
	}
	if disks.Format == Raw {
		return nil
	}
	for i, raw := range raws {
		_, err := run(ctx, "", "qemu-img", "convert", "-f", "raw", "-O", string(disks.Format), raw, disks.Paths[i])
		if err != nil {
			return fmt.Errorf("make the guest's disks: %w", err)
		}
	}
	return nil
}

func (b Boot) writeRaw(ctx context.Context, disks Disks, raws []string) (err error) {
	files := make([]*os.File, 0, len(raws))
	defer func() {
		for _, file := range files {
			err = errors.Join(err, file.Close())
		}
	}()
	areas := make([]io.WriterAt, len(raws))
	sizes := make([]int64, len(raws))
	for i, raw := range raws {
		file, err := os.OpenFile(raw, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		files = append(files, file)
		if err := file.Truncate(disks.Sizes[i]); err != nil {
			return err
		}
		areas[i], sizes[i] = file, disks.Sizes[i]
	}
	if err := b.makeBootable(ctx, files[0], disks.Settings); err != nil {
		return err
	}
	areas[0] = io.NewOffsetWriter(files[0], dataBegin)
	sizes[0] -= dataBegin
	return ledger.Format(areas, sizes, disks.ID, disks.RecordBytes)
}

// makeBootable gives a disk its boot sector, its partitions, the boot partition and its settings.
func (b Boot) makeBootable(ctx context.Context, disk *os.File, settings []string) error {
	sector, err := os.ReadFile(masterBootRecord)
	if err != nil {
		return fmt.Errorf("read the boot sector: %w", err)
	}
	if _, err := disk.WriteAt(sector, 0); err != nil {
		return err
	}
	if err := copySparse(disk, bootBegin, b.Partition); err != nil {
		return err
	}
	partition := exec.CommandContext(ctx, "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk.Name())
	partition.Stdin = strings.NewReader(fmt.Sprintf("label: dos\nstart=%d, size=%d, type=6, bootable\nstart=%d, type=83\n",
		bootBegin/sectorBytes, b.Bytes/sectorBytes, dataBegin/sectorBytes))
	if _, err := finish(partition, ""); err != nil {
		return err
	}
	menu := exec.CommandContext(ctx, "mcopy", "-o", "-i", fmt.Sprintf("%s@@%d", disk.Name(), bootBegin), "-", "::syslinux.cfg")
	menu.Stdin = strings.NewReader("SERIAL 0 115200\nDEFAULT umbra\nPROMPT 0\nLABEL umbra\nKERNEL vmlinuz\nINITRD initrd\nAPPEND " +
		fixedCommandLine + " " + strings.Join(settings, " ") + "\n")
	_, err = finish(menu, "")
	return err
}

// copySparse copies the file at path to an offset, leaving out what is zero.
func copySparse(disk *os.File, offset int64, path string) error {
	source, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }() // read only
	chunk := make([]byte, 64<<10)
	zero := make([]byte, len(chunk))
	for {
		n, err := io.ReadFull(source, chunk)
		if n > 0 && !bytes.Equal(chunk[:n], zero[:n]) {
			if _, err := disk.WriteAt(chunk[:n], offset); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		offset += int64(n)
	}
}
