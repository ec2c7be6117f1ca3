package nbd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
)

// replay is a server that has said everything it will ever say.
type replay struct {
	io.Reader
}

func (replay) Write(p []byte) (int, error) { return len(p), nil }

var greeting = join(u64(magicServer), u64(magicOption), u16(handshakeFixedNewstyle|handshakeNoZeroes))

// honest is a whole handshake up to the answer to NBD_OPT_GO.
var honest = join(greeting,
	optionAnswer(optionStructuredReply, optionReplyAck, nil),
	optionAnswer(optionSetMetaContext, optionReplyMetaContext, append(u32(7), "one"...)),
	optionAnswer(optionSetMetaContext, optionReplyAck, nil))

func exportInfo(size uint64) []byte {
	return optionAnswer(optionGo, optionReplyInfo, join(u16(infoExport), u64(size), u16(transmissionHasFlags)))
}

func blockInfo(least, preferred, most uint32) []byte {
	return optionAnswer(optionGo, optionReplyInfo, join(u16(infoBlockSize), u32(least), u32(preferred), u32(most)))
}

func TestALieInTheHandshakeIsAProtocolError(t *testing.T) {
	ack := optionAnswer(optionGo, optionReplyAck, nil)
	structuredOnly := join(greeting, optionAnswer(optionStructuredReply, optionReplyAck, nil))
	for name, answer := range map[string][]byte{
		"not NBD":                      []byte("SSH-2.0-something long enough"),
		"oldstyle":                     join(u64(magicServer), u64(0x00420281861253), make([]byte, 140)),
		"newstyle that is not fixed":   join(u64(magicServer), u64(magicOption), u16(handshakeNoZeroes)),
		"wrong option reply magic":     join(greeting, make([]byte, 20)),
		"reply to another option":      join(greeting, optionAnswer(optionGo, optionReplyAck, nil)),
		"option reply of 4 GiB":        join(greeting, u64(magicOptionReply), u32(optionStructuredReply), u32(1), u32(1<<32-1)),
		"structured reply with a list": join(greeting, optionAnswer(optionStructuredReply, 2, nil)),
		"context never asked for":      join(structuredOnly, optionAnswer(optionSetMetaContext, optionReplyMetaContext, append(u32(1), "other"...))),
		"context without an id":        join(structuredOnly, optionAnswer(optionSetMetaContext, optionReplyMetaContext, u16(1))),
		"context granted twice": join(structuredOnly,
			optionAnswer(optionSetMetaContext, optionReplyMetaContext, append(u32(1), "one"...)),
			optionAnswer(optionSetMetaContext, optionReplyMetaContext, append(u32(2), "one"...))),
		"no size":                 join(honest, ack),
		"size of half a field":    join(honest, optionAnswer(optionGo, optionReplyInfo, join(u16(infoExport), u32(1))), ack),
		"size beyond 63 bits":     join(honest, exportInfo(1<<63), ack),
		"minimum block 3":         join(honest, exportInfo(1), blockInfo(3, 4096, 1<<20), ack),
		"minimum block 0":         join(honest, exportInfo(1), blockInfo(0, 4096, 1<<20), ack),
		"minimum block too large": join(honest, exportInfo(1), blockInfo(1<<17, 1<<17, 1<<20), ack),
		"maximum below minimum":   join(honest, exportInfo(1), blockInfo(4096, 4096, 512), ack),
		"maximum not a multiple":  join(honest, exportInfo(1), blockInfo(512, 4096, 5000), ack),
		"information without end": join(honest, bytes.Repeat(exportInfo(1), optionRepliesMax+1)),
		"information of one byte": join(honest, optionAnswer(optionGo, optionReplyInfo, []byte{0})),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := negotiate(replay{bytes.NewReader(answer)}, Config{MetaContexts: []string{"one"}})
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v, want ErrProtocol", err)
			}
		})
	}
}

func TestARefusedExportIsANegotiationError(t *testing.T) {
	refused := join(honest, optionAnswer(optionGo, NegotiationUnknown, []byte("no such export")))
	_, err := negotiate(replay{bytes.NewReader(refused)}, Config{Export: "x", MetaContexts: []string{"one"}})
	var refusal *NegotiationError
	if !errors.As(err, &refusal) || refusal.Code != NegotiationUnknown || refusal.Message != "no such export" {
		t.Errorf("got %v", err)
	}
}

func TestAServerThatInsistsOnTLSIsANegotiationError(t *testing.T) {
	refused := join(greeting, optionAnswer(optionStructuredReply, NegotiationTLSRequired, nil))
	_, err := negotiate(replay{bytes.NewReader(refused)}, Config{})
	var refusal *NegotiationError
	if !errors.As(err, &refusal) || refusal.Code != NegotiationTLSRequired {
		t.Errorf("got %v", err)
	}
}

func TestBlockSizesDefaultToTheProtocols(t *testing.T) {
	c := dialScript(t, script{size: 1 << 20, structured: true}, Config{})
	if c.MinBlock() != 1 || c.PreferredBlock() != 4096 || c.MaxBlock() != 32<<20 {
		t.Errorf("got %d, %d, %d", c.MinBlock(), c.PreferredBlock(), c.MaxBlock())
	}
}

func TestContextsNotGrantedAreNotThere(t *testing.T) {
	c := dialScript(t, script{size: 1 << 20, structured: true, contexts: []string{"one"}}, Config{MetaContexts: []string{"one", "two"}})
	if !c.HasContext("one") || c.HasContext("two") {
		t.Error("only context one was granted")
	}
	err := c.BlockStatus(context.Background(), "two", 0, 1, func(Extent) error { return nil })
	if !errors.Is(err, ErrNoContext) {
		t.Errorf("got %v, want ErrNoContext", err)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	path := listen(t, func(conn net.Conn) {
		cancel()
		_, _ = io.Copy(io.Discard, conn)
	})
	if _, err := Dial(ctx, Config{Network: "unix", Address: path}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestImpossibleConfigsAreRefusedBeforeConnecting(t *testing.T) {
	for name, cfg := range map[string]Config{
		"negative in flight": {InFlightMax: -1},
		"too many in flight": {InFlightMax: inFlightLimit + 1},
		"long export":        {Export: string(make([]byte, stringBytesMax+1))},
		"context twice":      {MetaContexts: []string{"a", "a"}},
		"empty context":      {MetaContexts: []string{""}},
		"many contexts":      {MetaContexts: make([]string, metaContextsMax+1)},
	} {
		if _, err := Dial(context.Background(), cfg); !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("%s: got %v, want ErrInvalidConfig", name, err)
		}
	}
}
