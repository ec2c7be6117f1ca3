package ledger

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// A record is its magic, the ledger's id, its number, a checksum of everything else, and a payload
// that follows from the id and the number.
const (
	recordIDAt      = 8
	recordNumberAt  = 24
	recordSumAt     = 32
	recordPayloadAt = 40
)

// fillRecord makes buf, whose length is that of a record, into record n of the ledger.
func fillRecord(buf []byte, id ID, n uint64) {
	copy(buf, recordMagic)
	copy(buf[recordIDAt:], id[:])
	binary.LittleEndian.PutUint64(buf[recordNumberAt:], n)
	fillPayload(buf[recordPayloadAt:], id, n)
	binary.LittleEndian.PutUint64(buf[recordSumAt:], recordSum(buf))
}

func recordSum(buf []byte) uint64 {
	sum := crc32.Checksum(buf[:recordSumAt], castagnoli)
	return uint64(crc32.Update(sum, castagnoli, buf[recordPayloadAt:]))
}

// fillPayload writes incompressible bytes that depend on the id and the number alone (splitmix64).
func fillPayload(payload []byte, id ID, n uint64) {
	state := binary.LittleEndian.Uint64(id[:]) ^ binary.LittleEndian.Uint64(id[8:]) ^ n*0xd1342543de82ef95
	for ; len(payload) >= 8; payload = payload[8:] {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(payload, z^z>>31)
	}
}

// found is what a slot holds: the number of a record that is right, or one of the two below.
type found uint64

const (
	blank found = 0
	wrong found = ^found(0)
)

// inspect says what buf, the bytes of one slot, holds. scratch is of the same length. The payload is
// compared with what it must be, so a checksum that happens to fit wrong bytes is not enough.
func inspect(buf, scratch []byte, id ID) found {
	if string(buf[:8]) != recordMagic {
		if allZero(buf) {
			return blank
		}
		return wrong
	}
	n := binary.LittleEndian.Uint64(buf[recordNumberAt:])
	if n == 0 || found(n) == wrong || binary.LittleEndian.Uint64(buf[recordSumAt:]) != recordSum(buf) {
		return wrong
	}
	fillRecord(scratch, id, n)
	if !bytes.Equal(buf, scratch) {
		return wrong
	}
	return found(n)
}

var zeros [BlockBytes]byte

func allZero(buf []byte) bool {
	for ; len(buf) > BlockBytes; buf = buf[BlockBytes:] {
		if !bytes.Equal(buf[:BlockBytes], zeros[:]) {
			return false
		}
	}
	return bytes.Equal(buf, zeros[:len(buf)])
}
