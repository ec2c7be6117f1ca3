package nbd

import (
	"context"
	"errors"
	"slices"
	"testing"
)

const (
	liarSize   = 1 << 20
	liarOffset = 4096
	liarLength = 8192
)

// lie is what a server sends for a request of liarLength bytes at liarOffset.
type lie struct {
	name  string
	reply func(r wireRequest) []byte
}

func lies(reply ...lie) []lie { return reply }

func data(r wireRequest, final bool, offset uint64, length int) []byte {
	return structured(r.handle, final, chunkOffsetData, u64(offset), make([]byte, length))
}

func hole(r wireRequest, final bool, offset uint64, length uint32) []byte {
	return structured(r.handle, final, chunkOffsetHole, u64(offset), u32(length))
}

func status(r wireRequest, final bool, id uint32, extents ...uint32) []byte {
	body := u32(id)
	for _, v := range extents {
		body = append(body, u32(v)...)
	}
	return structured(r.handle, final, chunkBlockStatus, body)
}

func readLies() []lie {
	const off, length = liarOffset, liarLength
	return lies(
		lie{"a wrong magic", func(r wireRequest) []byte { return join(u32(0xdeadbeef), make([]byte, 64)) }},
		lie{"a handle never used", func(r wireRequest) []byte { return structured(r.handle+1000, true, chunkNone) }},
		lie{"a reply sent twice", func(r wireRequest) []byte { return join(data(r, true, off, length), data(r, true, off, length)) }},
		lie{"a simple reply", func(r wireRequest) []byte { return simple(r.handle, 0, make([]byte, length)) }},
		lie{"a simple error", func(r wireRequest) []byte { return simple(r.handle, EIO, nil) }},
		lie{"data before the request", func(r wireRequest) []byte { return data(r, true, off-1, length) }},
		lie{"data behind the request", func(r wireRequest) []byte { return data(r, true, off+1, length) }},
		lie{"data at the end of the address space", func(r wireRequest) []byte { return data(r, true, 1<<64-1, 16) }},
		lie{"data longer than the request", func(r wireRequest) []byte { return data(r, true, off, length+1) }},
		lie{"data of four gigabytes", func(r wireRequest) []byte {
			return join(chunkHeader(r.handle, true, chunkOffsetData, 1<<32-1), u64(off))
		}},
		lie{"data without bytes", func(r wireRequest) []byte { return data(r, false, off, 0) }},
		lie{"data without an offset", func(r wireRequest) []byte { return structured(r.handle, false, chunkOffsetData, u32(0)) }},
		lie{"overlapping data", func(r wireRequest) []byte { return join(data(r, false, off, 4096), data(r, true, off+4095, 4097)) }},
		lie{"a hole over data", func(r wireRequest) []byte { return join(data(r, false, off, length), hole(r, true, off, 1)) }},
		lie{"a hole of no length", func(r wireRequest) []byte { return hole(r, false, off, 0) }},
		lie{"a hole behind the request", func(r wireRequest) []byte { return hole(r, true, off, length+1) }},
		lie{"a hole of the wrong size", func(r wireRequest) []byte { return structured(r.handle, true, chunkOffsetHole, u64(off)) }},
		lie{"success with the end missing", func(r wireRequest) []byte { return data(r, true, off, length-1) }},
		lie{"success with the middle missing", func(r wireRequest) []byte {
			return join(data(r, false, off, 100), data(r, false, off+200, length-200), structured(r.handle, true, chunkNone))
		}},
		lie{"success with nothing", func(r wireRequest) []byte { return structured(r.handle, true, chunkNone) }},
		lie{"an empty chunk that is not the last", func(r wireRequest) []byte { return structured(r.handle, false, chunkNone) }},
		lie{"an empty chunk with bytes", func(r wireRequest) []byte { return structured(r.handle, true, chunkNone, u32(1)) }},
		lie{"block status for a read", func(r wireRequest) []byte { return status(r, true, 1, length, 0) }},
		lie{"an unknown chunk", func(r wireRequest) []byte { return structured(r.handle, true, 77, u32(1)) }},
		lie{"an error without a number", func(r wireRequest) []byte { return structured(r.handle, true, chunkError, errorBody(0, "")) }},
		lie{"an error too short", func(r wireRequest) []byte { return structured(r.handle, true, chunkError, u32(EIO)) }},
		lie{"an error whose message is longer than the chunk", func(r wireRequest) []byte {
			return structured(r.handle, true, chunkError, u32(EIO), u16(100), make([]byte, 10))
		}},
		lie{"an error with an overlong message", func(r wireRequest) []byte {
			return structured(r.handle, true, chunkError, errorBody(EIO, string(make([]byte, stringBytesMax+1))))
		}},
		lie{"an error with bytes behind the message", func(r wireRequest) []byte {
			return structured(r.handle, true, chunkError, errorBody(EIO, "x"), u32(0))
		}},
		lie{"an error outside the request", func(r wireRequest) []byte {
			return structured(r.handle, true, chunkErrorOffset, errorBody(EIO, ""), u64(off+length))
		}},
		lie{"an unknown error of four gigabytes", func(r wireRequest) []byte {
			return join(chunkHeader(r.handle, true, chunkErrorBit|99, 1<<32-1), errorBody(EIO, ""))
		}},
		lie{"errors without end", func(r wireRequest) []byte {
			one := structured(r.handle, false, chunkError, errorBody(EIO, ""))
			return join(slices.Repeat([][]byte{one}, errorChunksMax+1)...)
		}},
		lie{"more pieces than anyone needs", func(r wireRequest) []byte {
			var b []byte
			for i := uint64(0); i < liarLength/2; i++ {
				b = append(b, hole(r, false, off+2*i, 1)...)
			}
			return append(b, hole(r, false, off+1, 2)...) // overlaps, should the limit be exactly this many
		}},
	)
}

func statusLies() []lie {
	return lies(
		lie{"a simple success", func(r wireRequest) []byte { return simple(r.handle, 0, nil) }},
		lie{"no extents at all", func(r wireRequest) []byte { return structured(r.handle, true, chunkNone) }},
		lie{"a context without extents", func(r wireRequest) []byte { return status(r, true, 1) }},
		lie{"half an extent", func(r wireRequest) []byte { return status(r, true, 1, liarLength) }},
		lie{"an extent of no length", func(r wireRequest) []byte { return status(r, true, 1, 4096, 0, 0, 1) }},
		lie{"an extent beyond the device", func(r wireRequest) []byte { return status(r, true, 1, liarSize-liarOffset+1, 0) }},
		lie{"extents that add up beyond the device", func(r wireRequest) []byte {
			return status(r, true, 1, liarSize-liarOffset, 0, 1, 1)
		}},
		lie{"only another context", func(r wireRequest) []byte { return status(r, true, 2, liarLength, 0) }},
		lie{"an unknown context", func(r wireRequest) []byte { return status(r, true, 9, liarLength, 0) }},
		lie{"a context twice", func(r wireRequest) []byte {
			return join(status(r, false, 1, liarLength, 0), status(r, true, 1, liarLength, 0))
		}},
		lie{"a chunk of four gigabytes", func(r wireRequest) []byte {
			return join(chunkHeader(r.handle, true, chunkBlockStatus, 1<<32-4), u32(1))
		}},
		lie{"data for a block status", func(r wireRequest) []byte { return data(r, true, liarOffset, liarLength) }},
	)
}

func TestALieEndsTheConnectionForEveryoneAtOnce(t *testing.T) {
	for _, l := range readLies() {
		t.Run("read/"+l.name, func(t *testing.T) {
			testLie(t, l, func(c *Client) error {
				return c.ReadAt(context.Background(), make([]byte, liarLength), liarOffset)
			})
		})
	}
	for _, l := range statusLies() {
		t.Run("status/"+l.name, func(t *testing.T) {
			testLie(t, l, func(c *Client) error {
				return c.BlockStatus(context.Background(), "one", liarOffset, liarLength, func(Extent) error { return nil })
			})
		})
	}
}

// testLie runs the request that is lied to next to one that is never answered: both must end.
func testLie(t *testing.T, l lie, ask func(*Client) error) {
	bystanderSeen := make(chan struct{})
	c := dialScript(t, script{size: liarSize, structured: true, contexts: []string{"one", "two"}, play: func(p *peer) {
		if _, ok := p.request(); !ok {
			return
		}
		close(bystanderSeen)
		r, ok := p.request()
		if !ok {
			return
		}
		p.send(l.reply(r))
		p.linger()
	}}, Config{MetaContexts: []string{"one", "two"}})

	bystander := make(chan error, 1)
	go func() { bystander <- c.ReadAt(context.Background(), make([]byte, 1), 0) }()
	<-bystanderSeen
	err := ask(c)
	// A reply sent twice serves the first request well; the lie shows with the second.
	if err != nil && !errors.Is(err, ErrProtocol) {
		t.Errorf("the request got %v, want ErrProtocol", err)
	}
	if err == nil && l.name != "a reply sent twice" {
		t.Error("the lie was believed")
	}
	if err := <-bystander; !errors.Is(err, ErrProtocol) {
		t.Errorf("the bystander got %v, want ErrProtocol", err)
	}
	if err := c.ReadAt(context.Background(), make([]byte, 1), 0); !errors.Is(err, ErrProtocol) {
		t.Errorf("a later request got %v, want ErrProtocol", err)
	}
}

func TestServerHangingUpEndsEveryRequest(t *testing.T) {
	for name, reply := range map[string]func(r wireRequest) []byte{
		"between replies": func(wireRequest) []byte { return nil },
		"in a header":     func(r wireRequest) []byte { return data(r, true, 0, 100)[:9] },
		"in the payload":  func(r wireRequest) []byte { return data(r, true, 0, 100)[:60] },
	} {
		t.Run(name, func(t *testing.T) {
			c := dialScript(t, script{size: liarSize, structured: true, play: func(p *peer) {
				if r, ok := p.request(); ok {
					p.send(reply(r))
				}
			}}, Config{})
			if err := c.ReadAt(context.Background(), make([]byte, 100), 0); !errors.Is(err, ErrDisconnected) {
				t.Errorf("got %v, want ErrDisconnected", err)
			}
		})
	}
}
