package recoverystore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
)

// run is a sequence of neighbouring clusters of one chunk, either zero or stored one after another.
type run struct {
	first, count int // clusters within the chunk
	zero         bool
	loc          uint64 // place of the first cluster, in clusters from the data file's beginning
}

func (r run) end() int { return r.first + r.count }

// entry is what one seq wrote in one chunk: runs in order, and a checksum for each data cluster.
type entry struct {
	runs []run
	sums []Sum
}

func (e entry) dataClusters() int {
	n := 0
	for _, r := range e.runs {
		if !r.zero {
			n += r.count
		}
	}
	return n
}

func (e entry) clusters() int {
	n := 0
	for _, r := range e.runs {
		n += r.count
	}
	return n
}

// The eight bytes of a run, from the top: 10 bits first, 10 bits count-1, 1 bit zero, 3 bits reserved,
// 40 bits location.
const (
	runBytes    = 8
	sumBytes    = 16
	crcBytes    = 4
	locBits     = 40
	locMax      = 1 << locBits
	zeroShift   = 43
	countShift  = 44
	firstShift  = 54
	chunkMask   = ChunkClusters - 1
	reservedRun = 7 << locBits
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal appends the checksum of key and value, so that a value under a wrong key is noticed too.
func seal(key, value []byte) []byte {
	return binary.LittleEndian.AppendUint32(value, crcOf(key, value))
}

func crcOf(key, value []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, key), castagnoli, value)
}

// unseal checks and removes what seal appended.
func unseal(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - crcBytes
	if n < 0 || binary.LittleEndian.Uint32(sealed[n:]) != crcOf(key, sealed[:n]) {
		return nil, fmt.Errorf("%w: record %x: checksum mismatch", ErrCorruptIndex, key)
	}
	return sealed[:n], nil
}

func encodeRuns(key []byte, runs []run) []byte {
	b := make([]byte, 0, len(runs)*runBytes+crcBytes)
	for _, r := range runs {
		v := uint64(r.first)<<firstShift | uint64(r.count-1)<<countShift | r.loc
		if r.zero {
			v |= 1 << zeroShift
		}
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return seal(key, b)
}

// decodeRuns appends the runs to dst. Every error wraps ErrCorruptIndex.
func decodeRuns(dst []run, key, value []byte) ([]run, error) {
	b, err := unseal(key, value)
	if err != nil {
		return nil, err
	}
	return parseRuns(dst, key, b)
}

// parseRuns is decodeRuns of a record that was unsealed.
func parseRuns(dst []run, key, b []byte) ([]run, error) {
	if len(b) == 0 || len(b)%runBytes != 0 {
		return nil, fmt.Errorf("%w: record %x has %d bytes", ErrCorruptIndex, key, len(b))
	}
	end := 0
	dst = slices.Grow(dst, len(b)/runBytes)
	for ; len(b) > 0; b = b[runBytes:] {
		v := binary.LittleEndian.Uint64(b)
		r, ok := decodeRun(v, end)
		if !ok {
			return nil, fmt.Errorf("%w: record %x: impossible run %x", ErrCorruptIndex, key, v)
		}
		end = r.end()
		dst = append(dst, r)
	}
	return dst, nil
}

// decodeRun reads a run that is to begin at the cluster from or later.
func decodeRun(v uint64, from int) (r run, ok bool) {
	r = run{
		first: int(v >> firstShift),
		count: int(v>>countShift)&chunkMask + 1,
		zero:  v>>zeroShift&1 == 1,
		loc:   v & (locMax - 1),
	}
	return r, r.first >= from && r.end() <= ChunkClusters && v&reservedRun == 0 && r.zero == (r.loc == 0) && r.loc+uint64(r.count) <= locMax
}

func encodeSums(key []byte, sums []Sum) []byte {
	b := make([]byte, 0, len(sums)*sumBytes+crcBytes)
	for _, s := range sums {
		b = binary.LittleEndian.AppendUint64(b, s.Lo)
		b = binary.LittleEndian.AppendUint64(b, s.Hi)
	}
	return seal(key, b)
}

// decodeSums returns exactly n checksums. Every error wraps ErrCorruptIndex.
func decodeSums(key, value []byte, n int) ([]Sum, error) {
	if n == 0 && value == nil {
		return nil, nil
	}
	b, err := unseal(key, value)
	if err != nil {
		return nil, err
	}
	if len(b) != n*sumBytes {
		return nil, fmt.Errorf("%w: record %x: %d bytes of checksums for %d clusters", ErrCorruptIndex, key, len(b), n)
	}
	sums := make([]Sum, n)
	for i := range sums {
		sums[i] = Sum{Lo: binary.LittleEndian.Uint64(b[i*sumBytes:]), Hi: binary.LittleEndian.Uint64(b[i*sumBytes+8:])}
	}
	return sums, nil
}
