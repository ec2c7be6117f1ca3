package nbd

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// recording is a connection on which everything the server will ever say has arrived.
type recording struct {
	net.Conn
	in *bytes.Reader
}

func (r recording) Read(p []byte) (int, error)      { return r.in.Read(p) }
func (r recording) Close() error                    { return nil }
func (r recording) SetReadDeadline(time.Time) error { return nil }

// guardBytes lie on each side of a buffer, to see that nothing is written beside it.
const guardBytes = 64

// decoder is a receiver without goroutines, fed from a recording.
type decoder struct {
	client   *Client
	receiver receiver
	guarded  [][]byte
	requests []*request
}

func newDecoder(e export, stream []byte) *decoder {
	conn := recording{in: bytes.NewReader(stream)}
	c := prepareClient(conn, e, inFlightDefault)
	return &decoder{client: c, receiver: receiver{client: c, in: bufio.NewReaderSize(conn, receiveBufferBytes)}}
}

// pending makes a request that is in flight with the next handle.
func (d *decoder) pending(r *request) *request {
	r.done = make(chan struct{})
	r.handle = uint64(len(d.requests))
	if r.command == commandRead {
		whole := bytes.Repeat([]byte{0xAA}, int(r.length)+2*guardBytes)
		d.guarded = append(d.guarded, whole)
		r.buf = whole[guardBytes : guardBytes+int(r.length)]
	} else {
		r.extents = map[uint32][]wireExtent{}
	}
	d.client.slots <- struct{}{}
	d.client.pending[r.handle] = r
	d.requests = append(d.requests, r)
	return r
}

// run decodes until the connection cannot go on and says why.
func (d *decoder) run() error {
	for {
		if err := d.receiver.message(); err != nil {
			return err
		}
	}
}

func (d *decoder) guardsIntact() bool {
	guard := bytes.Repeat([]byte{0xAA}, guardBytes)
	for _, whole := range d.guarded {
		if !bytes.HasPrefix(whole, guard) || !bytes.HasSuffix(whole, guard) {
			return false
		}
	}
	return true
}

func isDone(r *request) bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// TestAnyLegalOrderOfChunksGivesTheBytes cuts two reads into data and holes, shuffles the pieces of each and
// interleaves the replies.
func TestAnyLegalOrderOfChunksGivesTheBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var replies [2][][]byte
		var want [2][]byte
		for i := range replies {
			want[i] = content(uint64(i)*77777, rapid.IntRange(1, 20000).Draw(t, "length"))
			replies[i] = drawReply(t, uint64(i), uint64(i)*77777, want[i])
		}
		var stream []byte
		for len(replies[0])+len(replies[1]) > 0 {
			i := rapid.IntRange(0, 1).Draw(t, "whose turn")
			if len(replies[i]) == 0 {
				i = 1 - i
			}
			stream, replies[i] = append(stream, replies[i][0]...), replies[i][1:]
		}
		d := newDecoder(export{size: 1 << 20, structured: true, minBlock: 1}, stream)
		for i := range want {
			d.pending(&request{command: commandRead, offset: uint64(i) * 77777, length: uint32(len(want[i]))})
		}
		if err := d.run(); !errors.Is(err, io.EOF) {
			t.Fatalf("a legal stream was refused: %v", err)
		}
		for i, r := range d.requests {
			if !isDone(r) || r.err != nil || !bytes.Equal(r.buf, want[i]) {
				t.Fatalf("read %d: done %v, error %v, or wrong bytes", i, isDone(r), r.err)
			}
		}
		if !d.guardsIntact() {
			t.Fatal("wrote beside the buffer")
		}
	})
}

// drawReply cuts a read into chunks in any order. Pieces drawn as holes are made zero in want.
func drawReply(t *rapid.T, handle, offset uint64, want []byte) [][]byte {
	type piece struct {
		from, to int
		hole     bool
	}
	var pieces []piece
	for from := 0; from < len(want); {
		to := min(len(want), from+rapid.IntRange(1, 6000).Draw(t, "piece"))
		pieces = append(pieces, piece{from, to, rapid.Bool().Draw(t, "hole")})
		from = to
	}
	pieces = rapid.Permutation(pieces).Draw(t, "order")
	doneApart := rapid.Bool().Draw(t, "done in a chunk of its own")
	var chunks [][]byte
	for i, p := range pieces {
		final := !doneApart && i == len(pieces)-1
		at := u64(offset + uint64(p.from))
		if p.hole {
			clear(want[p.from:p.to])
			chunks = append(chunks, structured(handle, final, chunkOffsetHole, at, u32(uint32(p.to-p.from))))
			continue
		}
		chunks = append(chunks, structured(handle, final, chunkOffsetData, at, want[p.from:p.to]))
	}
	if doneApart {
		chunks = append(chunks, structured(handle, true, chunkNone))
	}
	return chunks
}

func TestCoverageAgreesWithABitmap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const length = 64
		var c coverage
		var bitmap [length]bool
		for range rapid.IntRange(1, 40).Draw(t, "pieces") {
			from := rapid.IntRange(0, length-1).Draw(t, "from")
			to := rapid.IntRange(from+1, min(length, from+9)).Draw(t, "to")
			twice := false
			for i := from; i < to; i++ {
				twice = twice || bitmap[i]
			}
			if err := c.add(uint32(from), uint32(to)); (err != nil) != twice {
				t.Fatalf("adding %d to %d: %v, in the bitmap already: %v", from, to, err, twice)
			}
			if twice {
				continue
			}
			for i := from; i < to; i++ {
				bitmap[i] = true
			}
		}
		whole := true
		for _, there := range bitmap {
			whole = whole && there
		}
		if c.complete(length) != whole {
			t.Fatalf("complete is %v, the bitmap says %v", c.complete(length), whole)
		}
	})
}

func TestScatteredPiecesAreBounded(t *testing.T) {
	var c coverage
	for i := range uint32(readIslandsMax) {
		if err := c.add(2*i, 2*i+1); err != nil {
			t.Fatalf("piece %d: %v", i, err)
		}
	}
	if err := c.add(2*readIslandsMax, 2*readIslandsMax+1); !errors.Is(err, ErrProtocol) {
		t.Errorf("got %v, want ErrProtocol", err)
	}
	if err := c.add(1, 2); err != nil {
		t.Errorf("filling a gap must still be possible: %v", err)
	}
}
