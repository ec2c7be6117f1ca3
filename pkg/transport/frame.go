package transport

import (
	"encoding/binary"
	"fmt"
)

const (
	headerBytes = 24
	sumBytes    = 16
)

type frameKind uint8

const (
	frameControl  frameKind = 1
	frameClusters frameKind = 2
	frameZeros    frameKind = 3
	frameSwitch   frameKind = 4
)

// header is the beginning of every frame. Flags are not kept: none is defined.
type header struct {
	kind  frameKind
	disk  uint32
	first uint64
	count uint64
}

// put writes the header to the first headerBytes of b.
func (h header) put(b []byte) {
	_ = b[headerBytes-1]
	b[0] = byte(h.kind)
	b[1], b[2], b[3] = 0, 0, 0
	binary.BigEndian.PutUint32(b[4:], h.disk)
	binary.BigEndian.PutUint64(b[8:], h.first)
	binary.BigEndian.PutUint64(b[16:], h.count)
}

// parseHeader reads a header and checks everything that can be known without the rest of the frame.
func parseHeader(b *[headerBytes]byte) (header, error) {
	h := header{
		kind:  frameKind(b[0]),
		disk:  binary.BigEndian.Uint32(b[4:]),
		first: binary.BigEndian.Uint64(b[8:]),
		count: binary.BigEndian.Uint64(b[16:]),
	}
	if b[1] != 0 || b[2] != 0 || b[3] != 0 {
		return header{}, fmt.Errorf("%w: unknown flags %#x", ErrFrame, b[1:4])
	}
	switch h.kind {
	case frameControl:
		if h.disk != 0 || h.first != 0 || h.count > ControlBytesMax {
			return header{}, fmt.Errorf("%w: control frame of disk %d, cluster %d, %d bytes", ErrFrame, h.disk, h.first, h.count)
		}
	case frameClusters:
		if h.count == 0 || h.count > FrameClustersMax {
			return header{}, fmt.Errorf("%w: %d clusters in a frame", ErrFrame, h.count)
		}
	case frameZeros:
		if h.count == 0 {
			return header{}, fmt.Errorf("%w: zeros of no cluster", ErrFrame)
		}
	case frameSwitch:
		if h.disk != 0 || h.first != 0 || h.count != 0 {
			return header{}, fmt.Errorf("%w: switch frame of disk %d, cluster %d, count %d", ErrFrame, h.disk, h.first, h.count)
		}
	default:
		return header{}, fmt.Errorf("%w: unknown kind %d", ErrFrame, b[0])
	}
	if err := checkRange(h); err != nil {
		return header{}, err
	}
	return h, nil
}

// restBytes is how much of the frame follows its header.
func (h header) restBytes() uint64 {
	switch h.kind {
	case frameControl:
		return h.count
	case frameClusters:
		return h.count * (sumBytes + ClusterBytes)
	default:
		return 0
	}
}

// checkRange refuses clusters that no disk can have, so that nobody after it need think of overflow.
func checkRange(h header) error {
	if h.kind == frameControl {
		return nil
	}
	if h.first > clusterNumberMax || h.count > clusterNumberMax-h.first {
		return fmt.Errorf("%w: %d clusters from cluster %d", ErrFrame, h.count, h.first)
	}
	return nil
}

func putSum(b []byte, s Sum) {
	binary.BigEndian.PutUint64(b, s.Hi)
	binary.BigEndian.PutUint64(b[8:], s.Lo)
}

func getSum(b []byte) Sum {
	return Sum{Hi: binary.BigEndian.Uint64(b), Lo: binary.BigEndian.Uint64(b[8:])}
}
