package identity

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
)

// LocalServer is for a listener on a unix socket: the kernel says which user calls, and nothing is encrypted.
func LocalServer() credentials.TransportCredentials {
	return local{insecure.NewCredentials()}
}

// localInfo is who is at the other end of a unix socket.
type localInfo struct {
	credentials.CommonAuthInfo
	uid uint32
}

// AuthType names this kind.
func (localInfo) AuthType() string { return "unix" }

type local struct {
	credentials.TransportCredentials
}

func (l local) Clone() credentials.TransportCredentials { return l }

func (local) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("a %T is not a unix socket", conn), conn.Close())
	}
	uid, err := callerOf(socket)
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, localInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, uid}, nil
}

func callerOf(socket *net.UnixConn) (uint32, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("asking who calls: %w", err)
	}
	var user *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		user, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, fmt.Errorf("asking who calls: %w", err)
	}
	return user.Uid, nil
}

// LocalUser is the user that made the call, when it came by a unix socket.
func LocalUser(ctx context.Context) (uid uint32, ok bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return 0, false
	}
	info, ok := p.AuthInfo.(localInfo)
	return info.uid, ok
}
