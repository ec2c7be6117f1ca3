package nbd

import "encoding/binary"

// optionReply is one reply of the server to an option of the handshake.
type optionReply struct {
	kind uint32
	data []byte
}

func (n *negotiation) sendOption(option uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 16+len(data)), magicOption)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return n.write(append(b, data...))
}

// readReply reads one reply to option. A refusal comes back as a *NegotiationError.
func (n *negotiation) readReply(option uint32) (optionReply, error) {
	var header [20]byte
	if err := n.read(header[:]); err != nil {
		return optionReply{}, err
	}
	if magic := binary.BigEndian.Uint64(header[:]); magic != magicOptionReply {
		return optionReply{}, violation("option reply starts with %#x", magic)
	}
	if got := binary.BigEndian.Uint32(header[8:]); got != option {
		return optionReply{}, violation("reply to option %d instead of %d", got, option)
	}
	length := binary.BigEndian.Uint32(header[16:])
	if length > optionReplyBytesMax {
		return optionReply{}, violation("option reply of %d bytes", length)
	}
	reply := optionReply{kind: binary.BigEndian.Uint32(header[12:]), data: make([]byte, length)}
	if err := n.read(reply.data); err != nil {
		return optionReply{}, err
	}
	if reply.kind&optionReplyErrorBit != 0 {
		return optionReply{}, &NegotiationError{Option: option, Code: reply.kind, Message: string(reply.data)}
	}
	return reply, nil
}
