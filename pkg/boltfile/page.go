package boltfile

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
)

// Sizes and marks of bbolt's file format, version 2. Numbers are in the byte order of the machine.
const (
	metaMagic   = 0xED0CDAED
	metaVersion = 2
	metaPages   = 2

	branchPage   = 0x01
	leafPage     = 0x02
	freeListPage = 0x10

	pageHeaderBytes   = 16
	elementBytes      = 16
	bucketHeaderBytes = 16
	idBytes           = 8
	metaBytes         = 64
	metaSumAt         = 56

	pageBytesMin = 1 << 10
	pageBytesMax = 16 << 20

	bucketFlag = 1
	// countElsewhere: the count of a list of free pages does not fit, and is its first entry.
	countElsewhere = 0xFFFF
)

// meta is what a meta page says.
type meta struct {
	pageSize          uint64 // bytes
	root, free, pages uint64 // page numbers; the last one is the number of pages
	tx                uint64
}

// newestMeta finds the state that bbolt opens: the newer one of the two that is whole. behind says that the other one is not whole,
// and may have been the newer.
func newestMeta(b []byte) (m meta, behind bool, err error) {
	m, ok := readMeta(b, 0)
	if ok {
		other, whole := readMeta(b, m.pageSize)
		if whole && other.tx > m.tx {
			m = other
		}
		return m, !whole, nil
	}
	for at := uint64(pageBytesMin); at <= pageBytesMax; at *= 2 {
		if m, ok = readMeta(b, at); ok && m.pageSize == at {
			return m, true, nil
		}
	}
	return m, false, fmt.Errorf("%w: none of its first two pages is whole", ErrCorrupt)
}

func readMeta(b []byte, at uint64) (m meta, ok bool) {
	if at+pageHeaderBytes+metaBytes > uint64(len(b)) {
		return m, false
	}
	b = b[at+pageHeaderBytes:][:metaBytes]
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaSumAt])
	n := binary.NativeEndian
	if n.Uint32(b) != metaMagic || n.Uint32(b[4:]) != metaVersion || n.Uint64(b[metaSumAt:]) != sum.Sum64() {
		return m, false
	}
	m = meta{pageSize: uint64(n.Uint32(b[8:])), root: n.Uint64(b[16:]), free: n.Uint64(b[32:]), pages: n.Uint64(b[40:]), tx: n.Uint64(b[48:])}
	return m, m.pageSize >= pageBytesMin && m.pageSize <= pageBytesMax
}

// page is a page with those that it flows over into.
type page []byte

func (p page) id() uint64       { return binary.NativeEndian.Uint64(p) }
func (p page) kind() uint16     { return binary.NativeEndian.Uint16(p[8:]) }
func (p page) count() int       { return int(binary.NativeEndian.Uint16(p[10:])) }
func (p page) overflow() uint64 { return uint64(binary.NativeEndian.Uint32(p[12:])) }

// element is an entry of a branch page or a leaf page.
type element struct {
	key    []byte
	child  uint64 // of a branch page
	value  []byte // of a leaf page
	bucket bool
}

// elements reads the entries. Their contents have to lie behind the last of them, in order and without a gap, as bbolt writes them,
// and behind none there has to be nothing: else the count or a length is wrong.
func (p page) elements() ([]element, error) {
	n := binary.NativeEndian
	next := uint64(pageHeaderBytes + p.count()*elementBytes)
	if next > uint64(len(p)) {
		return nil, fmt.Errorf("%w: page %d has no room for %d entries", ErrCorrupt, p.id(), p.count())
	}
	if p.count() == 0 && slices.ContainsFunc(p[next:min(next+elementBytes, uint64(len(p)))], func(b byte) bool { return b != 0 }) {
		return nil, fmt.Errorf("%w: page %d has an entry more than it says", ErrCorrupt, p.id())
	}
	list := make([]element, p.count())
	for i := range list {
		at := uint64(pageHeaderBytes + i*elementBytes)
		b := p[at:]
		pos, keyBytes, valueBytes := n.Uint32(b), n.Uint32(b[4:]), uint32(0)
		if p.kind() == leafPage {
			pos, keyBytes, valueBytes = n.Uint32(b[4:]), n.Uint32(b[8:]), n.Uint32(b[12:])
			flags := n.Uint32(b)
			if flags > bucketFlag {
				return nil, fmt.Errorf("%w: entry %d of page %d has flags %x", ErrCorrupt, i, p.id(), flags)
			}
			list[i].bucket = flags == bucketFlag
		} else {
			list[i].child = n.Uint64(b[8:])
		}
		end := next + uint64(keyBytes) + uint64(valueBytes)
		if at+uint64(pos) != next || keyBytes == 0 || end > uint64(len(p)) {
			return nil, fmt.Errorf("%w: entry %d of page %d is out of place", ErrCorrupt, i, p.id())
		}
		list[i].key, list[i].value = p[next:][:keyBytes], p[next:end][keyBytes:]
		next = end
	}
	return list, nil
}

// freeIDs returns the numbers in a list of free pages.
func (p page) freeIDs() ([]byte, error) {
	if p.kind() != freeListPage {
		return nil, fmt.Errorf("%w: page %d, the list of free pages, is of kind %x", ErrCorrupt, p.id(), p.kind())
	}
	ids, count := p[pageHeaderBytes:], uint64(p.count())
	if count == countElsewhere {
		count, ids = binary.NativeEndian.Uint64(ids), ids[idBytes:]
	}
	if count > uint64(len(ids))/idBytes {
		return nil, fmt.Errorf("%w: page %d has no room for %d free pages", ErrCorrupt, p.id(), count)
	}
	return ids[:count*idBytes], nil
}
