package libvirt

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"libvirt.org/go/libvirtxml"
)

const (
	qcow2Magic = 0x514649fb // "QFI" and 0xfb
	// qcow2BitmapVersion is the first version of the format that can hold persistent bitmaps.
	qcow2BitmapVersion = 3
	// sectorBytes is what QEMU rounds the size of a raw image up to.
	sectorBytes = 512
)

// image is what a disk's image tells by itself.
type image struct {
	sizeBytes    int64 // virtual size; 0 when it is not known
	keepsBitmaps bool
}

// inspect looks into a disk's image, which asks nothing of libvirt and QEMU: neither a busy server nor one that hangs
// holds it up. Where it cannot look, the size is 0, and a qcow2 is taken to keep bitmaps: the version that does not has
// not been made by default since 2013, and a backup that is wrong about it fails with a reason.
func inspect(path, format string, disk *libvirtxml.DomainDisk) image {
	unknown := image{keepsBitmaps: format == "qcow2"}
	if path == "" || !plain(disk) {
		return unknown
	}
	file, err := os.Open(path)
	if err != nil {
		return unknown
	}
	defer file.Close()
	var found image
	switch format {
	case "qcow2":
		found, err = inspectQCOW2(file)
	case "raw":
		// Seeking finds the end of files and of block devices.
		found.sizeBytes, err = file.Seek(0, io.SeekEnd)
		found.sizeBytes = (found.sizeBytes + sectorBytes - 1) / sectorBytes * sectorBytes
	default:
		return unknown
	}
	if err != nil {
		return unknown
	}
	return found
}

// plain tells whether the file of a disk is its image as it is.
func plain(disk *libvirtxml.DomainDisk) bool {
	return disk.Encryption == nil && disk.Source != nil && disk.Source.Encryption == nil && disk.Source.Slices == nil
}

func inspectQCOW2(file io.Reader) (image, error) {
	var header struct {
		Magic, Version           uint32
		BackingOffset            uint64
		BackingSize, ClusterBits uint32
		Size                     uint64
	}
	if err := binary.Read(file, binary.BigEndian, &header); err != nil {
		return image{}, fmt.Errorf("read the header of a qcow2 image: %w", err)
	}
	if header.Magic != qcow2Magic {
		return image{}, fmt.Errorf("magic %#x is not that of qcow2", header.Magic)
	}
	return image{sizeBytes: int64(header.Size), keepsBitmaps: header.Version >= qcow2BitmapVersion}, nil
}
