package store

import (
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

var (
	// ErrNotFound says that there is no such record.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that somebody else changed the pair, or carried out the same request, since it was read:
	// look the request up, read the pair again and decide again.
	ErrConflict = errors.New("the record has changed since it was read")
	// ErrSession says that a host's session is not any more the one that a change relies on.
	ErrSession = errors.New("the host's session is another one")
	// ErrCompacted says that the history since the given revision is gone.
	ErrCompacted = errors.New("the history since this revision is not kept any more")
	// ErrBadToken says that a page token is not one that Operations returned.
	ErrBadToken = errors.New("not a page token of this list")
)

// AlreadyProtectedError says that the server is protected by another pair.
type AlreadyProtectedError struct{ Pair string }

func (e *AlreadyProtectedError) Error() string {
	return "the server is protected already, by pair " + e.Pair
}

// ExistsError says that the pair's id is taken.
type ExistsError struct{ Pair string }

func (e *ExistsError) Error() string { return "pair " + e.Pair + " exists already" }

// RequestReusedError says that the request id was used for another request.
type RequestReusedError struct{ ID string }

func (e *RequestReusedError) Error() string {
	return fmt.Sprintf("request id %q was used for another request", e.ID)
}

// VersionError says that a stored value was written by a newer version of the control plane than this one.
type VersionError struct {
	Key          string
	Found, Known int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s was written in format version %d by a newer control plane; this one knows up to version %d: upgrade it",
		e.Key, e.Found, e.Known)
}

// translate names the errors of etcd that callers decide on.
func translate(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, rpctypes.ErrFutureRev):
		return fmt.Errorf("%w: %w", ErrCompacted, err)
	default:
		return err
	}
}
