package transport

import (
	"fmt"

	"google.golang.org/grpc/mem"
)

func zerosFrame(disk uint32, first, count uint64) (*rawFrame, error) {
	h := header{kind: frameZeros, disk: disk, first: first, count: count}
	if count == 0 {
		return nil, fmt.Errorf("%w: zeros of no cluster", ErrFrame)
	}
	if err := checkRange(h); err != nil {
		return nil, err
	}
	b := make([]byte, headerBytes)
	h.put(b)
	return &rawFrame{data: mem.BufferSlice{mem.SliceBuffer(b)}}, nil
}
