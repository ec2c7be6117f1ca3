package transport

import (
	"fmt"
	"io"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// controlFrame encodes a message behind its header.
func controlFrame(m proto.Message) (*rawFrame, error) {
	b := make([]byte, headerBytes, headerBytes+512)
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		return nil, fmt.Errorf("encoding a control message: %w", err)
	}
	n := len(b) - headerBytes
	if n > ControlBytesMax {
		return nil, fmt.Errorf("a control message of %d bytes: %w", n, ErrTooLarge)
	}
	header{kind: frameControl, count: uint64(n)}.put(b)
	return &rawFrame{data: mem.BufferSlice{mem.SliceBuffer(b)}}, nil
}

// open reads the header of a received frame. The reader stands behind it and must be closed, also after an error.
func open(f *rawFrame) (header, *mem.Reader, error) {
	size := f.data.Len()
	r := f.data.Reader()
	f.data.Free() // the reader has a reference of its own
	var b [headerBytes]byte
	if size < headerBytes {
		return header{}, r, fmt.Errorf("%w: %d bytes", ErrFrame, size)
	}
	if err := readFull(r, b[:]); err != nil {
		return header{}, r, err
	}
	h, err := parseHeader(&b)
	if rest := uint64(size - headerBytes); err == nil && rest != h.restBytes() {
		err = fmt.Errorf("%w: %d bytes after the header where %d belong", ErrFrame, rest, h.restBytes())
	}
	return h, r, err
}

// readControl decodes the message of a control frame into m.
func readControl(h header, r io.Reader, m proto.Message) error {
	b := make([]byte, h.count)
	if err := readFull(r, b); err != nil {
		return err
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: a control message that cannot be decoded: %w", ErrFrame, err)
	}
	return nil
}

func readFull(r io.Reader, b []byte) error {
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("reading a replication frame: %w", err)
	}
	return nil
}

// switchFrame says that the frames after it come the other way: by the data connection, or by gRPC again.
func switchFrame() *rawFrame {
	b := make([]byte, headerBytes)
	header{kind: frameSwitch}.put(b)
	return &rawFrame{data: mem.BufferSlice{mem.SliceBuffer(b)}}
}
