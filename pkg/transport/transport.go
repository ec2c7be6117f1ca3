// Package transport is the replication stream between two hostds: control messages (protobuf) and disk data (raw) in frames,
// by one bidirectional gRPC method and, for the disk data, a connection beside it. It promises:
//
//   - Order. What one side sends, the other receives, once, in that order, or the stream ends.
//   - Verified data. Every 64 KiB cluster carries its XXH3-128, and the receiver compares it before the data is handed on.
//   - A strict decoder. A frame that is not exactly as described ends the stream with ErrFrame; nothing of it is handed on.
//   - Few copies. The sender fills a pooled buffer that goes to the socket as it is; the receiver reads each byte from its socket
//     into the buffer that is handed on, which gathers several frames where they continue one another.
//
// The method lives beside ordinary protobuf services on one server: it has a content-subtype of its own, by which gRPC finds
// the pass-through codec. Who may call is decided elsewhere (TLS, and the handler).
//
// # Two ways
//
// gRPC cuts messages into frames of 16 KiB and copies them on both ends, which for disk data is most of the work. So a shadow host
// answers a stream with a ticket, 16 random bytes in the header umbra-data-ticket-bin, and the main host, before its first
// clusters, opens a second connection to the same address, with the same credentials, and writes 24 bytes to it ("UMBRA
// replication data", CR, LF: as many as the preface of HTTP/2, from which the shadow host tells it) and the ticket. A switch
// frame says that what follows comes by the other way: by gRPC, that the data connection is next; there, that it has ended. The shadow
// side's messages come by gRPC, and the stream lives as long as the gRPC method does: with it ends the data connection. Hosts
// that know no data connection give no ticket, or heed none; their clusters go by gRPC.
//
// # Frames
//
// A frame, which is one message where gRPC carries it, has a header of 24 bytes, then what the kind says. Numbers are big endian.
//
//	 0  kind      1 byte    1 control, 2 clusters, 3 zeros, 4 switch
//	 1  flags     1 byte    0; bit 0 is kept for compressed data, every set bit is an error today
//	 2  reserved  2 bytes   0
//	 4  disk      4 bytes   the disk's number, from 0; 0 in a control or switch frame
//	 8  first     8 bytes   the first cluster; 0 in a control or switch frame
//	16  count     8 bytes   clusters; in a control frame the bytes of the message; 0 in a switch frame
//
// A control frame goes on with the message: MainMessage from the main side, ShadowMessage from the shadow side. A clusters
// frame goes on with count checksums of 16 bytes (XXH3-128, big endian) and count times 64 KiB of data. A zeros frame and a
// switch frame end with their header. Only control frames travel from the shadow side to the main side. A last cluster that the
// disk fills in part is padded with zeros, and its checksum is that of the padded cluster.
package transport

import (
	"errors"
	"fmt"
	"sync"

	"github.com/zeebo/xxh3"
)

// Limits and units of a stream.
const (
	// ClusterBytes is the unit of disk data.
	ClusterBytes = 64 << 10
	// FrameClustersMax is how many clusters one frame holds at most: 1 MiB.
	FrameClustersMax = 16
	// ControlBytesMax bounds the encoded size of a control message. Server XML and UEFI variables are the largest.
	ControlBytesMax = 16 << 20
	// clusterNumberMax bounds cluster numbers: beyond it a disk would have more bytes than an int64 counts.
	clusterNumberMax = 1 << 47
)

// FullMethod is the gRPC name of the method.
const FullMethod = "/" + serviceName + "/" + methodName

const (
	serviceName = "umbra.v1.ReplicationService"
	methodName  = "Replicate"
)

var (
	// ErrFrame means that a frame is not as it must be: the other side, or the way here, is broken. The stream is over.
	ErrFrame = errors.New("bad replication frame")
	// ErrChecksum is the ErrFrame of data that differs from its checksum.
	ErrChecksum = fmt.Errorf("%w: data does not match its checksum", ErrFrame)
	// ErrTooLarge means that a message to send exceeds a limit of the stream. Nothing was sent.
	ErrTooLarge = errors.New("larger than a replication frame may be")
)

// Sum is the checksum of one cluster.
type Sum = xxh3.Uint128

// SumOf returns the checksum of a cluster, padding included.
func SumOf(cluster []byte) Sum { return xxh3.Hash128(cluster) }

// ZeroSum returns the checksum of a cluster of zeros.
var ZeroSum = sync.OnceValue(func() Sum { return SumOf(make([]byte, ClusterBytes)) })
