package transport

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

const (
	// frameBytesMax is the largest frame: a control message at its limit.
	frameBytesMax = headerBytes + ControlBytesMax
	// streamWindowBytes is how much one stream may have on its way: 1 Gbit/s over 60 ms. It also bounds what a receiver holds
	// of a stream whose disk does not keep up.
	streamWindowBytes = 8 << 20
	// connWindowBytes is the same for all streams of a connection.
	connWindowBytes = 32 << 20
	// writeBufferBytes and readBufferBytes make one system call, and one pass of TLS, serve many HTTP/2 frames.
	writeBufferBytes = 128 << 10
	readBufferBytes  = 128 << 10
	// aliveAfter is how long a connection may be silent before the other side is asked whether it is there, and how long it
	// may take to answer: a host that lost its power ends its streams after twice this.
	aliveAfter = 15 * time.Second
	// aliveAfterMin is how often a server lets itself be asked.
	aliveAfterMin = 5 * time.Second
)

// serverOptions are what a server should have that carries replication streams, whatever else it serves.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.InitialWindowSize(streamWindowBytes),
		grpc.InitialConnWindowSize(connWindowBytes),
		grpc.WriteBufferSize(writeBufferBytes),
		grpc.ReadBufferSize(readBufferBytes),
		grpc.MaxRecvMsgSize(frameBytesMax),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: aliveAfter, Timeout: aliveAfter}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: aliveAfterMin, PermitWithoutStream: true}),
	}
}

// dialOptions are the same for a client's connection.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithInitialWindowSize(streamWindowBytes),
		grpc.WithInitialConnWindowSize(connWindowBytes),
		grpc.WithWriteBufferSize(writeBufferBytes),
		grpc.WithReadBufferSize(readBufferBytes),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: aliveAfter, Timeout: aliveAfter}),
	}
}
