package nbd

import "encoding/binary"

// Numbers of the handshake.
const (
	magicServer      = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption      = 0x49484156454f5054 // "IHAVEOPT"
	magicOptionReply = 0x0003e889045565a9

	handshakeFixedNewstyle = 1 << 0
	handshakeNoZeroes      = 1 << 1

	optionGo              = 7
	optionStructuredReply = 8
	optionSetMetaContext  = 10

	optionReplyAck         = 1
	optionReplyInfo        = 3
	optionReplyMetaContext = 4
	optionReplyErrorBit    = 1 << 31

	infoExport    = 0
	infoBlockSize = 3

	transmissionHasFlags     = 1 << 0
	transmissionReadOnly     = 1 << 1
	transmissionCanMultiConn = 1 << 8
)

// Numbers of the transmission phase.
const (
	magicRequest         = 0x25609513
	magicSimpleReply     = 0x67446698
	magicStructuredReply = 0x668e33ef

	commandRead        = 0
	commandDisconnect  = 2
	commandBlockStatus = 7

	replyFlagDone = 1 << 0

	chunkNone        = 0
	chunkOffsetData  = 1
	chunkOffsetHole  = 2
	chunkBlockStatus = 5
	chunkErrorBit    = 1 << 15
	chunkError       = chunkErrorBit | 1
	chunkErrorOffset = chunkErrorBit | 2
)

// Sizes of fixed parts, in bytes.
const (
	requestBytes             = 28
	simpleReplyRestBytes     = 12 // after the magic
	structuredReplyRestBytes = 16 // after the magic
	chunkOffsetBytes         = 8
	chunkHoleBytes           = 12
	chunkErrorFixedBytes     = 6
	contextIDBytes           = 4
	extentBytes              = 8
)

// Limits on what this side asks for and on what it lets a server make it do.
const (
	// stringBytesMax is the protocol's own limit on names and messages.
	stringBytesMax = 4096
	// optionReplyBytesMax bounds one option reply: the longest string with the numbers around it.
	optionReplyBytesMax = stringBytesMax + 64
	// optionRepliesMax bounds the replies to one option, beside those per metadata context.
	optionRepliesMax = 64
	// metaContextsMax bounds the contexts of one connection.
	metaContextsMax = 64
	// inFlightDefault is what QEMU handles at once per connection.
	inFlightDefault = 16
	// inFlightLimit is the largest Config.InFlightMax.
	inFlightLimit = 1024
	// readBytesMax is the largest read the protocol lets a client assume to be served.
	readBytesMax = 32 << 20
	// statusBytesMax is the longest range of one block status request: the largest 32-bit length that is a multiple
	// of every possible minimum block size.
	statusBytesMax = 1<<32 - 1<<16
	// statusPayloadBytesMax bounds one block status chunk: 2^20 extents, the most that any known server sends.
	statusPayloadBytesMax = contextIDBytes + extentBytes<<20
	// readIslandsMax bounds the separate pieces of a read that may be there at one time.
	readIslandsMax = 4096
	// errorChunksMax bounds the error chunks of one reply.
	errorChunksMax = 4096
	// minBlockLimit is the protocol's limit on the minimum block size.
	minBlockLimit = 64 << 10
	// receiveBufferBytes holds headers. Payload that arrives in it is copied twice, so it is small; with less, more time
	// goes into system calls than into those copies (measured with 4, 16 and 64 KiB).
	receiveBufferBytes = 16 << 10
)

// Block sizes of a server that does not name its own.
const (
	minBlockDefault       = 1
	preferredBlockDefault = 4096
	maxBlockDefault       = 32 << 20
	// maxBlockUnlimited is how a server says that it has no limit.
	maxBlockUnlimited = 1<<32 - 1
)

func appendRequest(b []byte, command uint16, handle, offset uint64, length uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, magicRequest)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, command)
	b = binary.BigEndian.AppendUint64(b, handle)
	b = binary.BigEndian.AppendUint64(b, offset)
	return binary.BigEndian.AppendUint32(b, length)
}
