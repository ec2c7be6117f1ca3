package libvirt

import (
	"context"
	"errors"
	"fmt"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

var errNoAnswer = errors.New("libvirt has not answered in time")

// call makes one call to libvirt. what says what was attempted, for the error. The context's error is returned as it
// is; everything that is libvirt's or the connection's fault wraps one of the hypervisor's errors where there is one.
func (h *Hypervisor) call(ctx context.Context, what string, fn func(*rpc.Libvirt) error) error {
	bounded, cancel := context.WithTimeoutCause(ctx, h.callTimeout, errNoAnswer)
	defer cancel()
	c, err := h.connections.take(bounded)
	if err != nil {
		return h.unreachable(ctx, what, err)
	}
	err = c.run(bounded, fn)
	var answer rpc.Error
	if err != nil && !errors.As(err, &answer) {
		// Whatever it was, an answer to this call may still be on its way on this connection.
		c.close()
	}
	h.connections.put(c)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answer):
		return fmt.Errorf("%s: %w", what, classify(err))
	}
	return h.unreachable(ctx, what, err)
}

func (h *Hypervisor) unreachable(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	return fmt.Errorf("%s: %w: %w", what, hypervisor.ErrUnavailable, err)
}

// ask is call for calls that have a result.
func ask[T any](ctx context.Context, h *Hypervisor, what string, fn func(*rpc.Libvirt) (T, error)) (T, error) {
	var result T
	err := h.call(ctx, what, func(l *rpc.Libvirt) (err error) {
		result, err = fn(l)
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return result, nil
}
