package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// giveBackBytes is how much of the file is looked at before its pages are given back.
const giveBackBytes = 32 << 20

// depthMax bounds how deep pages refer to pages. With bbolt's fan-out, five levels are more than a disk can hold.
const depthMax = 32

// check holds every page that the newest state refers to against bbolt's rules: it lies in the file, is referred to once, is of
// its kind and says its own number, what is in it lies one after another, and its keys are in order. Each page that nothing
// refers to has to be in the list of free pages, and no other. So a page that was left out, taken for another or cut short
// is noticed. behind is newestMeta's. The file must not change meanwhile.
func check(file *os.File) (behind bool, err error) {
	st, err := file.Stat()
	if err != nil {
		return false, err
	}
	if st.Size() == 0 {
		return false, fmt.Errorf("%w: it is empty", ErrCorrupt)
	}
	b, err := unix.Mmap(int(file.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return false, fmt.Errorf("map database: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(b)) }()
	// A page that cannot be read is a fault of the memory that it is mapped to.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, p)
		}
	}()
	return checkPages(b)
}

func checkPages(b []byte) (behind bool, err error) {
	m, behind, err := newestMeta(b)
	if err != nil {
		return false, err
	}
	if m.pages > uint64(len(b))/m.pageSize {
		return false, fmt.Errorf("%w: %d bytes long, its %d pages have more", ErrCorrupt, len(b), m.pages)
	}
	c := &checker{b: b, meta: m, seen: make([]bool, m.pages)}
	if err := c.tree(m.root, nil, nil, 0); err != nil {
		return false, err
	}
	return behind, c.freeList()
}

type checker struct {
	b []byte
	meta
	seen []bool // pages referred to
	kept uint64 // pages looked at since they were given back
}

// claim notes that something refers to the pages.
func (c *checker) claim(first, count uint64) error {
	if first < metaPages || first >= c.pages || count > c.pages-first {
		return fmt.Errorf("%w: page %d of %d is referred to", ErrCorrupt, first, c.pages)
	}
	for id := first; id < first+count; id++ {
		if c.seen[id] {
			return fmt.Errorf("%w: page %d is used twice", ErrCorrupt, id)
		}
		c.seen[id] = true
	}
	return nil
}

func (c *checker) page(id uint64) (page, error) {
	if err := c.claim(id, 1); err != nil {
		return nil, err
	}
	p := page(c.b[id*c.pageSize:])
	if p.id() != id {
		return nil, fmt.Errorf("%w: page %d says that it is %d", ErrCorrupt, id, p.id())
	}
	if more := p.overflow(); more > 0 {
		if err := c.claim(id+1, more); err != nil {
			return nil, err
		}
	}
	if c.kept += 1 + p.overflow(); c.kept > giveBackBytes/c.pageSize {
		c.kept = 0
		if err := unix.Madvise(c.b, unix.MADV_DONTNEED); err != nil {
			return nil, fmt.Errorf("give pages of the database back: %w", err)
		}
	}
	return p[:(1+p.overflow())*c.pageSize], nil
}

// tree checks the page and what is below it. Its keys are from low on and before high; nil: no limit.
func (c *checker) tree(id uint64, low, high []byte, depth int) error {
	p, err := c.page(id)
	if err != nil {
		return err
	}
	if depth > depthMax {
		return fmt.Errorf("%w: page %d lies too deep", ErrCorrupt, id)
	}
	switch p.kind() {
	case leafPage:
		return c.leaf(p, low, high, depth)
	case branchPage:
		return c.branch(p, low, high, depth)
	}
	return fmt.Errorf("%w: page %d is of kind %x", ErrCorrupt, id, p.kind())
}

func (c *checker) branch(p page, low, high []byte, depth int) error {
	list, err := p.elements()
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("%w: branch page %d is empty", ErrCorrupt, p.id())
	}
	if err := inOrder(p, list, low, high); err != nil {
		return err
	}
	for i, e := range list {
		next := high
		if i+1 < len(list) {
			next = list[i+1].key
		}
		if err := c.tree(e.child, e.key, next, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) leaf(p page, low, high []byte, depth int) error {
	list, err := p.elements()
	if err != nil {
		return err
	}
	if err := inOrder(p, list, low, high); err != nil {
		return err
	}
	for _, e := range list {
		if !e.bucket {
			continue
		}
		if len(e.value) < bucketHeaderBytes {
			return fmt.Errorf("%w: page %d has a bucket of %d bytes", ErrCorrupt, p.id(), len(e.value))
		}
		if root := binary.NativeEndian.Uint64(e.value); root != 0 {
			err = c.tree(root, nil, nil, depth+1)
		} else {
			err = inline(e.value[bucketHeaderBytes:])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inline checks a bucket so small that its only page is the value of its entry. It has no buckets.
func inline(p page) error {
	if len(p) < pageHeaderBytes || p.kind() != leafPage {
		return fmt.Errorf("%w: a bucket inside an entry makes no sense", ErrCorrupt)
	}
	list, err := p.elements()
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.bucket {
			return fmt.Errorf("%w: a bucket inside an entry has buckets", ErrCorrupt)
		}
	}
	return inOrder(p, list, nil, nil)
}

func inOrder(p page, list []element, low, high []byte) error {
	for i, e := range list {
		if i == 0 && bytes.Compare(e.key, low) < 0 || i > 0 && bytes.Compare(list[i-1].key, e.key) >= 0 {
			return fmt.Errorf("%w: key %d of page %d is out of order", ErrCorrupt, i, p.id())
		}
	}
	if n := len(list); n > 0 && high != nil && bytes.Compare(list[n-1].key, high) >= 0 {
		return fmt.Errorf("%w: the last key of page %d belongs to another page", ErrCorrupt, p.id())
	}
	return nil
}

// freeList checks that exactly those pages are free that nothing refers to.
func (c *checker) freeList() error {
	p, err := c.page(c.free)
	if err != nil {
		return err
	}
	ids, err := p.freeIDs()
	if err != nil {
		return err
	}
	last := uint64(0)
	for ; len(ids) > 0; ids = ids[idBytes:] {
		id := binary.NativeEndian.Uint64(ids)
		if id <= last {
			return fmt.Errorf("%w: free page %d is out of order", ErrCorrupt, id)
		}
		if err := c.claim(id, 1); err != nil {
			return err
		}
		last = id
	}
	for id, seen := range c.seen {
		if id >= metaPages && !seen {
			return fmt.Errorf("%w: page %d is neither in use nor free", ErrCorrupt, id)
		}
	}
	return nil
}
