package nbd

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzReplies feeds any bytes to the reply decoder, which has two reads and a block status in flight. It must come to
// an end with a reason that has a type, write nowhere but into the buffers, and call nothing complete that is not.
func FuzzReplies(f *testing.F) {
	const length = 8192
	first := wireRequest{handle: 0, offset: 0, length: length}
	second := wireRequest{handle: 1, offset: length, length: length}
	third := wireRequest{handle: 2, offset: 0, length: 1 << 16}
	f.Add(true, join(data(first, true, 0, length), data(second, false, length, 100), hole(second, true, length+100, length-100)))
	f.Add(true, join(status(third, false, 1, 4096, 1, 4096, 0), status(third, true, 2, 1<<16, 3)))
	f.Add(true, join(structured(0, false, chunkErrorOffset, errorBody(EIO, "bad"), u64(17)), structured(0, true, chunkNone)))
	f.Add(true, structured(1, true, chunkErrorBit|9, errorBody(EIO, "later"), make([]byte, 40)))
	f.Add(true, simple(2, EINVAL, nil))
	f.Add(false, join(simple(1, 0, make([]byte, length)), simple(0, ENOSPC, nil)))
	for _, l := range readLies() {
		if reply := l.reply(first); len(reply) < 1<<15 {
			f.Add(true, reply)
		}
	}
	for _, l := range statusLies() {
		f.Add(true, l.reply(third))
	}
	f.Fuzz(func(t *testing.T, isStructured bool, stream []byte) {
		e := export{size: 1 << 17, structured: isStructured, minBlock: 1, contexts: map[string]uint32{"one": 1, "two": 2}}
		d := newDecoder(e, stream)
		d.pending(&request{command: commandRead, offset: first.offset, length: first.length})
		d.pending(&request{command: commandRead, offset: second.offset, length: second.length})
		d.pending(&request{command: commandBlockStatus, offset: third.offset, length: third.length, wanted: []uint32{1}})
		err := d.run()
		if !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrDisconnected) {
			t.Fatalf("ended with %v", err)
		}
		if !d.guardsIntact() {
			t.Fatal("wrote beside the buffer")
		}
		for _, r := range d.requests {
			checkResult(t, e, r)
		}
	})
}

func checkResult(t *testing.T, e export, r *request) {
	t.Helper()
	if !isDone(r) {
		return
	}
	if r.err != nil {
		var refused *ServerError
		if !errors.As(r.err, &refused) || refused.Errno == 0 || len(refused.Message) > stringBytesMax {
			t.Fatalf("request completed with %v", r.err)
		}
		return
	}
	if r.command == commandRead {
		if e.structured && !r.covered.complete(r.length) {
			t.Fatal("read completed with parts missing")
		}
		return
	}
	sum := uint64(0)
	for _, extent := range r.extents[1] {
		if extent.length == 0 {
			t.Fatal("extent of no length")
		}
		sum += uint64(extent.length)
	}
	if sum == 0 || r.offset+sum > e.size {
		t.Fatalf("extents of %d bytes", sum)
	}
}

// FuzzHandshake feeds any bytes to the negotiation. What it accepts must be sound.
func FuzzHandshake(f *testing.F) {
	ack := optionAnswer(optionGo, optionReplyAck, nil)
	f.Add(join(honest, exportInfo(1<<30), blockInfo(512, 4096, 1<<25), ack))
	f.Add(join(honest, exportInfo(1<<30), ack))
	f.Add(join(honest, optionAnswer(optionGo, NegotiationUnknown, []byte("no"))))
	f.Add(join(greeting, optionAnswer(optionStructuredReply, NegotiationUnsupported, nil), exportInfo(5), ack))
	f.Fuzz(func(t *testing.T, stream []byte) {
		e, err := negotiate(replay{bytes.NewReader(stream)}, Config{MetaContexts: []string{"one", "two"}})
		if err != nil {
			var refusal *NegotiationError
			if !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrDisconnected) && !errors.As(err, &refusal) {
				t.Fatalf("ended with %v", err)
			}
			return
		}
		if e.size > 1<<63-1 || !isPowerOfTwo(e.minBlock) || e.maxBlock < e.minBlock || len(e.contexts) > 2 {
			t.Fatalf("accepted %+v", e)
		}
	})
}
