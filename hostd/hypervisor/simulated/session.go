package simulated

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// The numbers of the NBD protocol, fixed newstyle with structured replies.
const (
	magicServer   = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption   = 0x49484156454f5054 // "IHAVEOPT"
	magicReply    = 0x0003e889045565a9
	flagsServer   = 1 | 2 // fixed newstyle, no zeroes
	optAbort      = 2
	optInfo       = 6
	optGo         = 7
	optStructured = 8
	optSetContext = 10
	repAck        = 1
	repInfo       = 3
	repContext    = 4
	repUnsup      = 1<<31 | 1
	repUnknown    = 1<<31 | 6
	infoExport    = 0
	// Flags are there, read-only, several readers see the same.
	flagsExport = 1 | 1<<1 | 1<<8
	// optionBytesMax bounds what a reader may ask in one option.
	optionBytesMax = 64 << 10
)

const allocationContext = "base:allocation"

// session is one reader.
type session struct {
	conn       net.Conn
	exports    map[string]export
	chosen     export
	structured bool
	contexts   []string // by id
}

func (s *session) run() error {
	if err := s.send(uint64(magicServer), uint64(magicOption), uint16(flagsServer)); err != nil {
		return err
	}
	var clientFlags uint32
	if err := s.receive(&clientFlags); err != nil {
		return err
	}
	for {
		going, err := s.option()
		if err != nil {
			return err
		}
		if going {
			return s.transmit()
		}
	}
}

// option answers one option. going is true when the transmission begins.
func (s *session) option() (going bool, err error) {
	var head struct {
		Magic          uint64
		Option, Length uint32
	}
	if err := s.receive(&head); err != nil {
		return false, err
	}
	if head.Magic != magicOption || head.Length > optionBytesMax {
		return false, errProtocol
	}
	data := make([]byte, head.Length)
	if _, err := io.ReadFull(s.conn, data); err != nil {
		return false, fmt.Errorf("read an option: %w", err)
	}
	switch head.Option {
	case optAbort:
		_ = s.reply(head.Option, repAck, nil)
		return false, io.EOF
	case optStructured:
		s.structured = true
		return false, s.reply(head.Option, repAck, nil)
	case optSetContext:
		return false, s.setContexts(head.Option, bytes.NewReader(data))
	case optInfo, optGo:
		return s.choose(head.Option, bytes.NewReader(data))
	}
	return false, s.reply(head.Option, repUnsup, nil)
}

func (s *session) choose(option uint32, data *bytes.Reader) (going bool, err error) {
	name, err := readString(data)
	if err != nil {
		return false, err
	}
	chosen, ok := s.exports[name]
	if !ok || !s.structured {
		return false, s.reply(option, repUnknown, nil)
	}
	s.chosen = chosen
	info := binary.BigEndian.AppendUint16(nil, infoExport)
	info = binary.BigEndian.AppendUint64(info, uint64(chosen.image.sizeBytes))
	info = binary.BigEndian.AppendUint16(info, flagsExport)
	if err := s.reply(option, repInfo, info); err != nil {
		return false, err
	}
	return option == optGo, s.reply(option, repAck, nil)
}

func (s *session) setContexts(option uint32, data *bytes.Reader) error {
	name, err := readString(data)
	if err != nil {
		return err
	}
	chosen, ok := s.exports[name]
	if !ok {
		return s.reply(option, repUnknown, nil)
	}
	var queries uint32
	if err := binary.Read(data, binary.BigEndian, &queries); err != nil {
		return fmt.Errorf("read the contexts asked for: %w", err)
	}
	s.contexts = nil
	for range queries {
		query, err := readString(data)
		if err != nil {
			return err
		}
		if query != allocationContext && (query != chosen.context || query == "") {
			continue
		}
		answer := binary.BigEndian.AppendUint32(nil, uint32(len(s.contexts)))
		s.contexts = append(s.contexts, query)
		if err := s.reply(option, repContext, append(answer, query...)); err != nil {
			return err
		}
	}
	return s.reply(option, repAck, nil)
}

func readString(data *bytes.Reader) (string, error) {
	var length uint32
	if err := binary.Read(data, binary.BigEndian, &length); err != nil {
		return "", fmt.Errorf("read a length: %w", err)
	}
	if int64(length) > int64(data.Len()) {
		return "", errProtocol
	}
	text := make([]byte, length)
	_, err := io.ReadFull(data, text)
	if err != nil {
		return "", fmt.Errorf("read a string: %w", err)
	}
	return string(text), nil
}

func (s *session) reply(option, kind uint32, data []byte) error {
	return s.send(uint64(magicReply), option, kind, uint32(len(data)), data)
}

// send writes the values in one piece.
func (s *session) send(values ...any) error {
	var message bytes.Buffer
	for _, value := range values {
		if err := binary.Write(&message, binary.BigEndian, value); err != nil {
			return fmt.Errorf("write a message: %w", err)
		}
	}
	if _, err := s.conn.Write(message.Bytes()); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

func (s *session) receive(value any) error {
	if err := binary.Read(s.conn, binary.BigEndian, value); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	return nil
}
