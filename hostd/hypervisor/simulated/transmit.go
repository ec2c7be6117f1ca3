package simulated

import (
	"encoding/binary"
	"io"
)

const (
	magicRequest   = 0x25609513
	magicChunk     = 0x668e33ef
	cmdRead        = 0
	cmdDisconnect  = 2
	cmdBlockStatus = 7
	chunkDone      = 1
	chunkData      = 1
	chunkStatus    = 5
	chunkError     = 1<<15 | 1
	errnoInvalid   = 22
	stateHoleZero  = 1 | 2
	stateDirty     = 1
	// readBytesMax is QEMU's own limit for one request.
	readBytesMax = 32 << 20
	// extentsMax bounds the answer to one question for block status; the reader asks on.
	extentsMax = 4096
)

type request struct {
	Magic       uint32
	Flags, Kind uint16
	Cookie      uint64
	Offset      uint64
	Length      uint32
}

func (s *session) transmit() error {
	for {
		var r request
		if err := s.receive(&r); err != nil {
			return err
		}
		if r.Magic != magicRequest {
			return errProtocol
		}
		if r.Kind == cmdDisconnect {
			return io.EOF
		}
		if err := s.answer(r); err != nil {
			return err
		}
	}
}

func (s *session) answer(r request) error {
	size := uint64(s.chosen.image.sizeBytes)
	inside := r.Length > 0 && r.Offset < size && uint64(r.Length) <= size-r.Offset
	switch {
	case inside && r.Kind == cmdRead && r.Length <= readBytesMax:
		data := make([]byte, 8+r.Length)
		binary.BigEndian.PutUint64(data, r.Offset)
		s.chosen.image.read(data[8:], int64(r.Offset))
		return s.chunk(r, chunkDone, chunkData, data)
	case inside && r.Kind == cmdBlockStatus && len(s.contexts) > 0:
		for id, name := range s.contexts {
			var flags uint16
			if id == len(s.contexts)-1 {
				flags = chunkDone
			}
			if err := s.chunk(r, flags, chunkStatus, s.chosen.status(uint32(id), name, r)); err != nil {
				return err
			}
		}
		return nil
	}
	failure := binary.BigEndian.AppendUint32(nil, errnoInvalid)
	return s.chunk(r, chunkDone, chunkError, binary.BigEndian.AppendUint16(failure, 0))
}

func (s *session) chunk(r request, flags, kind uint16, data []byte) error {
	return s.send(uint32(magicChunk), flags, kind, r.Cookie, uint32(len(data)), data)
}

// status describes the clusters of a range in one context, neighbours with the same flags as one extent.
func (e export) status(id uint32, context string, r request) []byte {
	answer := binary.BigEndian.AppendUint32(nil, id)
	var length, flags uint32
	extents := 0
	for at, end := r.Offset, r.Offset+uint64(r.Length); at < end && extents < extentsMax; {
		number := int64(at / clusterBytes)
		next := min(end, uint64(number+1)*clusterBytes)
		now := e.flags(context, number)
		if length > 0 && now != flags {
			answer = appendExtent(answer, length, flags)
			extents, length = extents+1, 0
		}
		flags = now
		length += uint32(next - at)
		at = next
	}
	return appendExtent(answer, length, flags)
}

func (e export) flags(context string, cluster int64) uint32 {
	_, allocated := e.image.clusters[cluster]
	switch {
	case context == e.context && e.dirty[cluster]:
		return stateDirty
	case context == allocationContext && !allocated:
		return stateHoleZero
	}
	return 0
}

func appendExtent(answer []byte, length, flags uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(answer, length), flags)
}
