package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// export is what the negotiation found out.
type export struct {
	size                               uint64
	flags                              uint16
	structured                         bool
	minBlock, preferredBlock, maxBlock uint32
	// contexts are the negotiated metadata contexts, each with the id the server gave it.
	contexts map[string]uint32
}

// negotiation is the handshake on one connection. It reads without a buffer, so that not a byte of the transmission
// phase can be lost in one.
type negotiation struct {
	conn io.ReadWriter
}

func negotiate(conn io.ReadWriter, cfg Config) (export, error) {
	n := negotiation{conn: conn}
	if err := n.greet(); err != nil {
		return export{}, err
	}
	structured, err := n.askStructuredReplies()
	if err != nil {
		return export{}, err
	}
	var contexts map[string]uint32
	if structured && len(cfg.MetaContexts) > 0 {
		contexts, err = n.askMetaContexts(cfg)
		if err != nil {
			return export{}, err
		}
	}
	e, err := n.enter(cfg.Export)
	if err != nil {
		return export{}, err
	}
	e.structured, e.contexts = structured, contexts
	return e, nil
}

func (n *negotiation) greet() error {
	var hello [18]byte
	if err := n.read(hello[:]); err != nil {
		return err
	}
	if magic := binary.BigEndian.Uint64(hello[0:]); magic != magicServer {
		return violation("greeting starts with %#x", magic)
	}
	if magic := binary.BigEndian.Uint64(hello[8:]); magic != magicOption {
		return violation("not a newstyle server: second magic %#x", magic)
	}
	offered := binary.BigEndian.Uint16(hello[16:])
	if offered&handshakeFixedNewstyle == 0 {
		return violation("not a fixed newstyle server: handshake flags %#x", offered)
	}
	accepted := uint32(offered & (handshakeFixedNewstyle | handshakeNoZeroes))
	return n.write(binary.BigEndian.AppendUint32(nil, accepted))
}

func (n *negotiation) askStructuredReplies() (bool, error) {
	if err := n.sendOption(optionStructuredReply, nil); err != nil {
		return false, err
	}
	reply, err := n.readReply(optionStructuredReply)
	if err != nil {
		return false, ignoreRefusal(err)
	}
	if reply.kind != optionReplyAck {
		return false, violation("structured replies answered with type %d", reply.kind)
	}
	return true, nil
}

func (n *negotiation) askMetaContexts(cfg Config) (map[string]uint32, error) {
	data := appendString(nil, cfg.Export)
	data = binary.BigEndian.AppendUint32(data, uint32(len(cfg.MetaContexts)))
	for _, name := range cfg.MetaContexts {
		data = appendString(data, name)
	}
	if err := n.sendOption(optionSetMetaContext, data); err != nil {
		return nil, err
	}
	contexts := make(map[string]uint32, len(cfg.MetaContexts))
	ids := make(map[uint32]bool, len(cfg.MetaContexts))
	for {
		reply, err := n.readReply(optionSetMetaContext)
		if err != nil {
			return nil, ignoreRefusal(err)
		}
		if reply.kind == optionReplyAck {
			return contexts, nil
		}
		if reply.kind != optionReplyMetaContext || len(reply.data) < contextIDBytes {
			return nil, violation("metadata contexts answered with type %d and %d bytes", reply.kind, len(reply.data))
		}
		id, name := binary.BigEndian.Uint32(reply.data), string(reply.data[contextIDBytes:])
		if _, twice := contexts[name]; twice || ids[id] || !slices.Contains(cfg.MetaContexts, name) {
			return nil, violation("metadata context %q with id %d was not asked for or is there twice", name, id)
		}
		contexts[name], ids[id] = id, true
	}
}

// enter asks for the export and for the transmission phase to begin.
func (n *negotiation) enter(name string) (export, error) {
	data := appendString(nil, name)
	data = binary.BigEndian.AppendUint16(data, 1)
	data = binary.BigEndian.AppendUint16(data, infoBlockSize)
	if err := n.sendOption(optionGo, data); err != nil {
		return export{}, err
	}
	e := export{minBlock: minBlockDefault, preferredBlock: preferredBlockDefault, maxBlock: maxBlockDefault}
	sized := false
	for range optionRepliesMax {
		reply, err := n.readReply(optionGo)
		if err != nil {
			return export{}, err
		}
		if reply.kind == optionReplyAck {
			if !sized {
				return export{}, violation("export entered without its size")
			}
			return e, nil
		}
		if reply.kind != optionReplyInfo || len(reply.data) < 2 {
			return export{}, violation("NBD_OPT_GO answered with type %d and %d bytes", reply.kind, len(reply.data))
		}
		kind, info := binary.BigEndian.Uint16(reply.data), reply.data[2:]
		switch kind {
		case infoExport:
			sized = true
			err = e.takeExport(info)
		case infoBlockSize:
			err = e.takeBlockSizes(info)
		}
		if err != nil {
			return export{}, err
		}
	}
	return export{}, violation("more than %d replies to NBD_OPT_GO", optionRepliesMax)
}

func (e *export) takeExport(info []byte) error {
	if len(info) != 10 {
		return violation("export information of %d bytes", len(info))
	}
	e.size, e.flags = binary.BigEndian.Uint64(info), binary.BigEndian.Uint16(info[8:])
	if e.size > math.MaxInt64 {
		return violation("export of %d bytes", e.size)
	}
	if e.flags&transmissionHasFlags == 0 {
		return violation("transmission flags %#x", e.flags)
	}
	return nil
}

func (e *export) takeBlockSizes(info []byte) error {
	if len(info) != 12 {
		return violation("block size information of %d bytes", len(info))
	}
	least, preferred, most := binary.BigEndian.Uint32(info), binary.BigEndian.Uint32(info[4:]), binary.BigEndian.Uint32(info[8:])
	sound := isPowerOfTwo(least) && least <= minBlockLimit &&
		isPowerOfTwo(preferred) && preferred >= least &&
		most >= least && (most == maxBlockUnlimited || most%least == 0)
	if !sound {
		return violation("block sizes %d, %d, %d", least, preferred, most)
	}
	e.minBlock, e.preferredBlock, e.maxBlock = least, preferred, most
	return nil
}

// ignoreRefusal lets the negotiation go on without an option the server does not want, except where no other option
// could succeed either.
func ignoreRefusal(err error) error {
	var refusal *NegotiationError
	if !errors.As(err, &refusal) {
		return err
	}
	if refusal.Code == NegotiationTLSRequired || refusal.Code == NegotiationShutdown {
		return refusal
	}
	return nil
}

func isPowerOfTwo(v uint32) bool { return v != 0 && v&(v-1) == 0 }

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

func (n *negotiation) read(p []byte) error {
	if _, err := io.ReadFull(n.conn, p); err != nil {
		return fmt.Errorf("%w during negotiation: %w", ErrDisconnected, err)
	}
	return nil
}

func (n *negotiation) write(p []byte) error {
	if _, err := n.conn.Write(p); err != nil {
		return fmt.Errorf("%w during negotiation: %w", ErrDisconnected, err)
	}
	return nil
}
