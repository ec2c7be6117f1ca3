package nbd

import (
	"context"
	"fmt"
	"slices"
)

// Flags of an extent. What they mean depends on the metadata context.
const (
	// StateHole in "base:allocation": no storage is behind the extent.
	StateHole = 1 << 0
	// StateZero in "base:allocation": the extent reads as zeroes.
	StateZero = 1 << 1
	// StateDirty in a "qemu:dirty-bitmap:" context: the extent has changed.
	StateDirty = 1 << 0
)

// Extent is a range of the export whose blocks have the same flags. Offset and Length are bytes.
type Extent struct {
	Offset, Length uint64
	Flags          uint32
}

// BlockStatus calls fn for every extent of one metadata context from byte offset off to off+length, in order, without
// gaps, never beyond that range, neighbours with equal flags merged into one. It asks the server as often as needed,
// one request at a time. An error from fn ends the walk and is returned as it is; fn is called by the caller's own
// goroutine, with nothing locked.
//
// Other errors are those of ReadAt, and ErrNoContext for a context that was not negotiated. fn may have been called for
// the beginning of the range when an error comes.
func (c *Client) BlockStatus(ctx context.Context, metaContext string, off, length uint64, fn func(Extent) error) error {
	return c.BlockStatuses(ctx, []string{metaContext}, off, length, func(off, length uint64, flags []uint32) error {
		return fn(Extent{Offset: off, Length: length, Flags: flags[0]})
	})
}

// BlockStatuses is BlockStatus for several metadata contexts with the same requests: fn gets ranges in which no
// context's flags change, and the flags in the order of metaContexts. It must not keep the flags slice.
func (c *Client) BlockStatuses(ctx context.Context, metaContexts []string, off, length uint64,
	fn func(off, length uint64, flags []uint32) error,
) error {
	if err := c.checkRange(off, length); err != nil {
		return err
	}
	ids := make([]uint32, len(metaContexts))
	for i, name := range metaContexts {
		id, ok := c.export.contexts[name]
		if !ok {
			return fmt.Errorf("%w: %q", ErrNoContext, name)
		}
		ids[i] = id
	}
	if len(ids) == 0 {
		return fmt.Errorf("%w: none named", ErrNoContext)
	}
	m := merger{fn: fn, flags: make([]uint32, 0, len(ids))}
	for end := off + length; off < end; {
		lists, err := c.askStatus(ctx, ids, off, uint32(min(end-off, statusBytesMax)))
		if err != nil {
			return fmt.Errorf("nbd: block status of %d bytes at %d: %w", end-off, off, err)
		}
		off, err = m.addAll(lists, off, end)
		if err != nil {
			return err
		}
	}
	return m.flush()
}

// askStatus sends one request. It returns a list of extents for each id, none of them empty.
func (c *Client) askStatus(ctx context.Context, ids []uint32, off uint64, length uint32) ([][]wireExtent, error) {
	r := &request{
		command: commandBlockStatus,
		offset:  off,
		length:  length,
		wanted:  ids,
		extents: make(map[uint32][]wireExtent, len(ids)),
	}
	if err := c.start(ctx, r); err != nil {
		return nil, err
	}
	if err := c.wait(ctx, r); err != nil {
		return nil, err
	}
	lists := make([][]wireExtent, len(ids))
	for i, id := range ids {
		lists[i] = r.extents[id]
	}
	return lists, nil
}

// merger joins neighbours with equal flags, also across requests.
type merger struct {
	fn          func(off, length uint64, flags []uint32) error
	off, length uint64
	flags       []uint32
}

// addAll walks the lists side by side from off, as far as the shortest of them reaches but not beyond end, and returns
// how far it came.
func (m *merger) addAll(lists [][]wireExtent, off, end uint64) (uint64, error) {
	flags := make([]uint32, len(lists))
	for off < end {
		step := end - off
		for i, list := range lists {
			if len(list) == 0 {
				return off, nil
			}
			flags[i] = list[0].flags
			step = min(step, uint64(list[0].length))
		}
		if err := m.add(off, step, flags); err != nil {
			return off, err
		}
		off += step
		for i := range lists {
			lists[i][0].length -= uint32(step)
			if lists[i][0].length == 0 {
				lists[i] = lists[i][1:]
			}
		}
	}
	return off, nil
}

func (m *merger) add(off, length uint64, flags []uint32) error {
	if m.length > 0 && slices.Equal(m.flags, flags) {
		m.length += length
		return nil
	}
	if err := m.flush(); err != nil {
		return err
	}
	m.off, m.length, m.flags = off, length, append(m.flags[:0], flags...)
	return nil
}

func (m *merger) flush() error {
	if m.length == 0 {
		return nil
	}
	return m.fn(m.off, m.length, m.flags)
}
