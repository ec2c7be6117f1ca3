package nbd

import "encoding/binary"

// dataChunk takes a chunk that carries a part of a read.
func (v *receiver) dataChunk(r *request, ch chunk) error {
	if ch.length <= chunkOffsetBytes {
		return violation("data chunk of %d bytes", ch.length)
	}
	header, err := v.take(chunkOffsetBytes)
	if err != nil {
		return err
	}
	part, err := r.claim(binary.BigEndian.Uint64(header), ch.length-chunkOffsetBytes)
	if err != nil {
		return err
	}
	return v.fill(r, part)
}

// holeChunk takes a chunk that says that a part of a read is zero.
func (v *receiver) holeChunk(r *request, ch chunk) error {
	if ch.length != chunkHoleBytes {
		return violation("hole chunk of %d bytes", ch.length)
	}
	header, err := v.take(chunkHoleBytes)
	if err != nil {
		return err
	}
	part, err := r.claim(binary.BigEndian.Uint64(header), binary.BigEndian.Uint32(header[chunkOffsetBytes:]))
	if err != nil {
		return err
	}
	h := &v.client.handover
	if !h.begin(r) {
		return nil
	}
	clear(part)
	h.finish(r)
	return nil
}

// claim returns the part of the buffer that a chunk with length bytes at offset fills, once it is certain that the
// chunk lies within the request and overlaps no other.
func (r *request) claim(offset uint64, length uint32) ([]byte, error) {
	if length == 0 || offset < r.offset || uint64(length) > uint64(r.length) || offset-r.offset > uint64(r.length-length) {
		return nil, violation("chunk of %d bytes at %d in a read of %d at %d", length, offset, r.length, r.offset)
	}
	from := uint32(offset - r.offset)
	if err := r.covered.add(from, from+length); err != nil {
		return nil, err
	}
	return r.buf[from : from+length], nil
}

// errorChunk takes a chunk that says why a request failed. The first of a reply is what its caller will see.
func (v *receiver) errorChunk(r *request, ch chunk) error {
	r.errorChunks++
	if r.errorChunks > errorChunksMax {
		return violation("more than %d error chunks in one reply", errorChunksMax)
	}
	if ch.length < chunkErrorFixedBytes {
		return violation("error chunk of %d bytes", ch.length)
	}
	header, err := v.take(chunkErrorFixedBytes)
	if err != nil {
		return err
	}
	errno, textBytes := binary.BigEndian.Uint32(header), uint32(binary.BigEndian.Uint16(header[4:]))
	rest := ch.length - chunkErrorFixedBytes
	if errno == 0 || textBytes > stringBytesMax || textBytes > rest {
		return violation("error chunk of %d bytes with number %d and a message of %d bytes", ch.length, errno, textBytes)
	}
	text, err := v.take(int(textBytes))
	if err != nil {
		return err
	}
	if r.refused == nil {
		r.refused = &ServerError{Errno: errno, Message: string(text)}
	}
	return v.errorTail(r, ch.kind, rest-textBytes)
}

// errorTail takes what follows the message of an error chunk.
func (v *receiver) errorTail(r *request, kind uint16, length uint32) error {
	switch {
	case kind == chunkError && length == 0:
		return nil
	case kind == chunkErrorOffset && length == chunkOffsetBytes:
		tail, err := v.take(chunkOffsetBytes)
		if err != nil {
			return err
		}
		offset := binary.BigEndian.Uint64(tail)
		if offset < r.offset || offset-r.offset >= uint64(r.length) {
			return violation("error at %d in a request of %d bytes at %d", offset, r.length, r.offset)
		}
		return nil
	case kind != chunkError && kind != chunkErrorOffset && length <= stringBytesMax:
		// A kind of error from a later protocol: what it has in common with the others is enough.
		return v.skip(int(length))
	}
	return violation("error chunk of type %d with %d bytes after the message", kind, length)
}

// wireExtent is one extent as it is sent. Its place follows from those before it.
type wireExtent struct{ length, flags uint32 }

// statusChunk takes the extents of one metadata context. The protocol lets a server answer for less than was asked, and
// lets what it says reach beyond the request, but not beyond the export.
func (v *receiver) statusChunk(r *request, ch chunk) error {
	if ch.length > statusPayloadBytesMax || ch.length < contextIDBytes+extentBytes || (ch.length-contextIDBytes)%extentBytes != 0 {
		return violation("block status chunk of %d bytes", ch.length)
	}
	header, err := v.take(contextIDBytes)
	if err != nil {
		return err
	}
	id := binary.BigEndian.Uint32(header)
	if _, twice := r.extents[id]; twice || !v.client.isContext(id) {
		return violation("block status of metadata context %d, which is unknown or was there before", id)
	}
	var extents []wireExtent
	wanted := r.wants(id)
	at := r.offset
	for range (ch.length - contextIDBytes) / extentBytes {
		b, err := v.take(extentBytes)
		if err != nil {
			return err
		}
		e := wireExtent{length: binary.BigEndian.Uint32(b), flags: binary.BigEndian.Uint32(b[4:])}
		if e.length == 0 || uint64(e.length) > v.client.export.size-at {
			return violation("extent of %d bytes at %d of an export of %d", e.length, at, v.client.export.size)
		}
		if wanted && at-r.offset < uint64(r.length) {
			extents = append(extents, e)
		}
		at += uint64(e.length)
	}
	r.extents[id] = extents
	return nil
}

func (c *Client) isContext(id uint32) bool {
	for _, known := range c.export.contexts {
		if known == id {
			return true
		}
	}
	return false
}

func (r *request) wants(id uint32) bool {
	for _, wanted := range r.wanted {
		if wanted == id {
			return true
		}
	}
	return false
}
