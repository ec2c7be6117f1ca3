package nbd

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// script is a server that does what a test says after an honest handshake.
type script struct {
	size       uint64
	structured bool
	blocks     []uint32 // minimum, preferred, maximum; none are sent when empty
	contexts   []string // granted, with ids 1, 2, …
	// play runs when the transmission phase begins. The connection closes when it returns.
	play func(p *peer)
}

// peer is the server's end of a scripted connection.
type peer struct {
	t    *testing.T
	conn net.Conn
}

// dialScript connects a Client to the script. Both ends are gone when the test is over.
func dialScript(t *testing.T, s script, cfg Config) *Client {
	t.Helper()
	cfg.Network, cfg.Address = "unix", listen(t, func(conn net.Conn) {
		p := &peer{t: t, conn: conn}
		if p.handshake(s) && s.play != nil {
			s.play(p)
		}
	})
	c, err := Dial(context.Background(), cfg)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// listen serves one connection and returns the socket's path.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	path := filepath.Join(shortTempDir(t), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		serve(conn)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-over
	})
	return path
}

// shortTempDir is a folder whose path leaves room for a socket's name, which t.TempDir does not always do.
func shortTempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatalf("make folder: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// handshake answers options until the client enters the export.
func (p *peer) handshake(s script) bool {
	p.send(u64(magicServer), u64(magicOption), u16(handshakeFixedNewstyle|handshakeNoZeroes))
	p.receive(4)
	for {
		header := p.receive(16)
		if header == nil {
			return false
		}
		option := binary.BigEndian.Uint32(header[8:])
		p.receive(int(binary.BigEndian.Uint32(header[12:])))
		switch option {
		case optionStructuredReply:
			if !s.structured {
				p.send(optionAnswer(option, NegotiationUnsupported, nil))
				continue
			}
		case optionSetMetaContext:
			for i, name := range s.contexts {
				p.send(optionAnswer(option, optionReplyMetaContext, append(u32(uint32(i+1)), name...)))
			}
		case optionGo:
			p.send(optionAnswer(option, optionReplyInfo, join(u16(infoExport), u64(s.size), u16(transmissionHasFlags))))
			if len(s.blocks) == 3 {
				p.send(optionAnswer(option, optionReplyInfo, join(u16(infoBlockSize), u32(s.blocks[0]), u32(s.blocks[1]), u32(s.blocks[2]))))
			}
			p.send(optionAnswer(option, optionReplyAck, nil))
			return true
		}
		p.send(optionAnswer(option, optionReplyAck, nil))
	}
}

// wireRequest is a request as the server sees it.
type wireRequest struct {
	command uint16
	handle  uint64
	offset  uint64
	length  uint32
}

// request waits for the client's next request; ok is false when the connection is over.
func (p *peer) request() (r wireRequest, ok bool) {
	b := p.receive(requestBytes)
	if b == nil {
		return wireRequest{}, false
	}
	if magic := binary.BigEndian.Uint32(b); magic != magicRequest {
		p.t.Errorf("request starts with %#x", magic)
		return wireRequest{}, false
	}
	return wireRequest{
		command: binary.BigEndian.Uint16(b[6:]),
		handle:  binary.BigEndian.Uint64(b[8:]),
		offset:  binary.BigEndian.Uint64(b[16:]),
		length:  binary.BigEndian.Uint32(b[24:]),
	}, true
}

// linger keeps the connection open until the client ends it.
func (p *peer) linger() { _, _ = io.Copy(io.Discard, p.conn) }

func (p *peer) receive(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(p.conn, b); err != nil {
		return nil
	}
	return b
}

// send ignores errors: a client that has noticed a lie hangs up while the server is still telling it.
func (p *peer) send(parts ...[]byte) { _, _ = p.conn.Write(join(parts...)) }

func optionAnswer(option, kind uint32, data []byte) []byte {
	return join(u64(magicOptionReply), u32(option), u32(kind), u32(uint32(len(data))), data)
}

func simple(handle uint64, errno uint32, payload []byte) []byte {
	return join(u32(magicSimpleReply), u32(errno), u64(handle), payload)
}

// structured is one chunk; final is the flag NBD_REPLY_FLAG_DONE.
func structured(handle uint64, final bool, kind uint16, payload ...[]byte) []byte {
	body := join(payload...)
	return join(chunkHeader(handle, final, kind, uint32(len(body))), body)
}

func chunkHeader(handle uint64, final bool, kind uint16, length uint32) []byte {
	flags := uint16(0)
	if final {
		flags = replyFlagDone
	}
	return join(u32(magicStructuredReply), u16(flags), u16(kind), u64(handle), u32(length))
}

func errorBody(errno uint32, message string) []byte {
	return join(u32(errno), u16(uint16(len(message))), []byte(message))
}

func join(parts ...[]byte) []byte {
	var b []byte
	for _, part := range parts {
		b = append(b, part...)
	}
	return b
}

func u16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
