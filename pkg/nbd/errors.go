package nbd

import (
	"errors"
	"fmt"
)

// The reasons for which a connection ends. Each is final for the Client that returned it.
var (
	// ErrProtocol means that the server sent something the protocol does not allow.
	ErrProtocol = errors.New("nbd: protocol violation by the server")
	// ErrDisconnected means that the socket failed or that the server hung up.
	ErrDisconnected = errors.New("nbd: disconnected")
	// ErrClosed means that Close was called.
	ErrClosed = errors.New("nbd: client closed")
)

// Mistakes of the caller. The request was not sent and the connection is unharmed.
var (
	// ErrInvalidRange means a range outside the export or not aligned to its minimum block size.
	ErrInvalidRange = errors.New("nbd: invalid range")
	// ErrNoContext means a metadata context that was not negotiated on this connection.
	ErrNoContext = errors.New("nbd: metadata context not negotiated")
	// ErrInvalidConfig means a Config that cannot be used with any server.
	ErrInvalidConfig = errors.New("nbd: invalid config")
)

// Error numbers of the protocol. They are its own, equal on every platform.
const (
	EPERM     = 1
	EIO       = 5
	ENOMEM    = 12
	EINVAL    = 22
	ENOSPC    = 28
	EOVERFLOW = 75
	ENOTSUP   = 95
	ESHUTDOWN = 108
)

// ServerError is a request that the server answered with an error. The connection remains usable, with one exception
// the protocol makes: after ESHUTDOWN the caller is expected to Close.
type ServerError struct {
	// Errno is the protocol's error number, never 0.
	Errno uint32
	// Message is the server's own text. It may be empty and is to be treated as untrusted.
	Message string
}

func (e *ServerError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("nbd: server error %s", errnoName(e.Errno))
	}
	return fmt.Sprintf("nbd: server error %s: %q", errnoName(e.Errno), e.Message)
}

func errnoName(errno uint32) string {
	switch errno {
	case EPERM:
		return "EPERM"
	case EIO:
		return "EIO"
	case ENOMEM:
		return "ENOMEM"
	case EINVAL:
		return "EINVAL"
	case ENOSPC:
		return "ENOSPC"
	case EOVERFLOW:
		return "EOVERFLOW"
	case ENOTSUP:
		return "ENOTSUP"
	case ESHUTDOWN:
		return "ESHUTDOWN"
	}
	return fmt.Sprint(errno)
}

// Codes of a NegotiationError that a caller may want to tell apart.
const (
	NegotiationUnsupported = 1<<31 + 1
	NegotiationPolicy      = 1<<31 + 2
	NegotiationInvalid     = 1<<31 + 3
	NegotiationTLSRequired = 1<<31 + 5
	NegotiationUnknown     = 1<<31 + 6
	NegotiationShutdown    = 1<<31 + 7
)

// NegotiationError is a handshake option the server refused: NegotiationUnknown for NBD_OPT_GO means that there is no
// such export.
type NegotiationError struct {
	// Option is the NBD_OPT_ number that was refused.
	Option uint32
	// Code is the NBD_REP_ERR_ number.
	Code uint32
	// Message is the server's own text, untrusted, possibly empty.
	Message string
}

func (e *NegotiationError) Error() string {
	return fmt.Sprintf("nbd: server refused %s: %s: %q", optionName(e.Option), negotiationCodeName(e.Code), e.Message)
}

func optionName(option uint32) string {
	switch option {
	case optionGo:
		return "NBD_OPT_GO"
	case optionStructuredReply:
		return "NBD_OPT_STRUCTURED_REPLY"
	case optionSetMetaContext:
		return "NBD_OPT_SET_META_CONTEXT"
	}
	return fmt.Sprintf("option %d", option)
}

func negotiationCodeName(code uint32) string {
	switch code {
	case NegotiationUnsupported:
		return "unsupported"
	case NegotiationPolicy:
		return "forbidden by policy"
	case NegotiationInvalid:
		return "invalid"
	case NegotiationTLSRequired:
		return "TLS required"
	case NegotiationUnknown:
		return "unknown export"
	case NegotiationShutdown:
		return "shutting down"
	}
	return fmt.Sprintf("error %d", code&^(1<<31))
}

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}
