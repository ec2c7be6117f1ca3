package nbd

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
)

// content is what the scripted servers hold at an offset.
func content(offset uint64, length int) []byte {
	b := make([]byte, length)
	for i := range b {
		at := offset + uint64(i)
		b[i] = byte(at) ^ byte(at>>8) ^ byte(at>>16)
	}
	return b
}

// serveReads answers every read honestly, in structured replies or simple ones.
func serveReads(isStructured bool, seen func(wireRequest)) func(*peer) {
	return func(p *peer) {
		for {
			r, ok := p.request()
			if !ok || r.command != commandRead {
				return
			}
			if seen != nil {
				seen(r)
			}
			payload := content(r.offset, int(r.length))
			if isStructured {
				p.send(structured(r.handle, true, chunkOffsetData, u64(r.offset), payload))
				continue
			}
			p.send(simple(r.handle, 0, payload))
		}
	}
}

func TestReadsAreSplitAtTheLargestBlock(t *testing.T) {
	var lengths []uint32
	c := dialScript(t, script{
		size: 1 << 20, structured: true, blocks: []uint32{512, 4096, 10240},
		play: serveReads(true, func(r wireRequest) { lengths = append(lengths, r.length) }),
	}, Config{InFlightMax: 2})
	p := make([]byte, 25600)
	if err := c.ReadAt(context.Background(), p, 1024); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, content(1024, len(p))) {
		t.Error("wrong bytes")
	}
	if !slices.Equal(lengths, []uint32{10240, 10240, 5120}) {
		t.Errorf("lengths of the requests: %d", lengths)
	}
}

func TestAServerWithoutStructuredRepliesCanBeRead(t *testing.T) {
	c := dialScript(t, script{size: 1 << 20, play: serveReads(false, nil)}, Config{MetaContexts: []string{"one"}})
	p := make([]byte, 100000)
	if err := c.ReadAt(context.Background(), p, 5); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, content(5, len(p))) {
		t.Error("wrong bytes")
	}
	if c.HasContext("one") {
		t.Error("there are no contexts without structured replies")
	}
}

func TestAServerErrorLeavesTheConnectionUsable(t *testing.T) {
	replies := map[string]struct {
		structured bool
		reply      func(r wireRequest) []byte
		want       ServerError
	}{
		"simple": {false, func(r wireRequest) []byte { return simple(r.handle, ENOMEM, nil) }, ServerError{Errno: ENOMEM}},
		"structured": {true, func(r wireRequest) []byte {
			return structured(r.handle, true, chunkError, errorBody(ENOSPC, "full"))
		}, ServerError{Errno: ENOSPC, Message: "full"}},
		"after some data": {true, func(r wireRequest) []byte {
			return join(data(r, false, r.offset, 10), structured(r.handle, false, chunkErrorOffset, errorBody(EIO, "bad"), u64(r.offset+10)),
				structured(r.handle, true, chunkNone))
		}, ServerError{Errno: EIO, Message: "bad"}},
		"before some data": {true, func(r wireRequest) []byte {
			return join(structured(r.handle, false, chunkError, errorBody(EIO, "bad")), data(r, true, r.offset, 10))
		}, ServerError{Errno: EIO, Message: "bad"}},
		"of a kind not known yet": {true, func(r wireRequest) []byte {
			return structured(r.handle, true, chunkErrorBit|99, errorBody(EPERM, "no"), make([]byte, 30))
		}, ServerError{Errno: EPERM, Message: "no"}},
	}
	for name, tc := range replies {
		t.Run(name, func(t *testing.T) {
			c := dialScript(t, script{size: 1 << 20, structured: tc.structured, play: func(p *peer) {
				if r, ok := p.request(); ok {
					p.send(tc.reply(r))
				}
				serveReads(tc.structured, nil)(p)
			}}, Config{})
			p := make([]byte, 4096)
			err := c.ReadAt(context.Background(), p, 0)
			var refused *ServerError
			if !errors.As(err, &refused) || *refused != tc.want {
				t.Errorf("got %v, want %v", err, &tc.want)
			}
			if err := c.ReadAt(context.Background(), p, 512); err != nil || !bytes.Equal(p, content(512, len(p))) {
				t.Errorf("the next read failed: %v", err)
			}
		})
	}
}

func TestRangesOutsideTheExportAreNeverSent(t *testing.T) {
	c := dialScript(t, script{
		size: 1<<20 + 100, structured: true, blocks: []uint32{512, 4096, 1 << 20},
		play: serveReads(true, func(r wireRequest) {
			if r.offset != 1<<20 {
				t.Errorf("sent: %+v", r)
			}
		}),
	}, Config{})
	for _, r := range []struct {
		off    uint64
		length int
	}{{1 << 20, 101}, {1<<20 + 101, 0}, {1<<64 - 512, 1024}, {1, 512}, {512, 1}} {
		if err := c.ReadAt(context.Background(), make([]byte, r.length), r.off); !errors.Is(err, ErrInvalidRange) {
			t.Errorf("%d bytes at %d: got %v, want ErrInvalidRange", r.length, r.off, err)
		}
	}
	if err := c.ReadAt(context.Background(), make([]byte, 100), 1<<20); err != nil {
		t.Errorf("unaligned end of the export: %v", err)
	}
}

func TestReadsAfterCloseSayClosed(t *testing.T) {
	goodbye := make(chan uint16, 1)
	c := dialScript(t, script{size: 1 << 20, structured: true, play: func(p *peer) {
		r, _ := p.request()
		goodbye <- r.command
	}}, Config{})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if command := <-goodbye; command != commandDisconnect {
		t.Errorf("the server saw command %d, want NBD_CMD_DISC", command)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := c.ReadAt(context.Background(), make([]byte, 1), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestCloseEndsRequestsUnderWay(t *testing.T) {
	seen := make(chan struct{})
	c := dialScript(t, script{size: 1 << 20, structured: true, play: func(p *peer) {
		r, _ := p.request()
		p.send(data(r, true, 0, 1000)[:100]) // the rest of the payload never comes
		close(seen)
		p.linger()
	}}, Config{})
	result := make(chan error, 1)
	go func() { result <- c.ReadAt(context.Background(), make([]byte, 1000), 0) }()
	<-seen
	_ = c.Close()
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}
