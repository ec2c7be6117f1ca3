package recoverystore

import "encoding/binary"

// chunkKey names one chunk of one disk.
type chunkKey struct {
	disk, chunk uint32
}

func (k chunkKey) less(o chunkKey) bool {
	if k.disk != o.disk {
		return k.disk < o.disk
	}
	return k.chunk < o.chunk
}

const (
	entryKeyBytes  = 16
	extentKeyBytes = 12
)

// entryKey is the key in locs and sums: disk, chunk, seq. All versions of a chunk lie together, oldest
// first.
func entryKey(k chunkKey, seq uint64) []byte {
	b := make([]byte, 0, entryKeyBytes)
	b = binary.BigEndian.AppendUint32(b, k.disk)
	b = binary.BigEndian.AppendUint32(b, k.chunk)
	return binary.BigEndian.AppendUint64(b, seq)
}

func parseEntryKey(b []byte) (k chunkKey, seq uint64, ok bool) {
	if len(b) != entryKeyBytes {
		return chunkKey{}, 0, false
	}
	k.disk = binary.BigEndian.Uint32(b)
	k.chunk = binary.BigEndian.Uint32(b[4:])
	return k, binary.BigEndian.Uint64(b[8:]), true
}

// birthKey is the key in births: seq, disk, chunk. What one seq wrote lies together.
func birthKey(seq uint64, k chunkKey) []byte {
	b := make([]byte, 0, entryKeyBytes)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint32(b, k.disk)
	return binary.BigEndian.AppendUint32(b, k.chunk)
}

func parseBirthKey(b []byte) (seq uint64, k chunkKey, ok bool) {
	if len(b) != entryKeyBytes {
		return 0, chunkKey{}, false
	}
	k.disk = binary.BigEndian.Uint32(b[8:])
	k.chunk = binary.BigEndian.Uint32(b[12:])
	return binary.BigEndian.Uint64(b), k, true
}

func extentKey(disk uint32, start uint64) []byte {
	b := make([]byte, 0, extentKeyBytes)
	b = binary.BigEndian.AppendUint32(b, disk)
	return binary.BigEndian.AppendUint64(b, start)
}

func uintValue(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
