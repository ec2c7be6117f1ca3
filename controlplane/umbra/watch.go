package main

import (
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// again reads a stream, and reads it again when it breaks, until the stream says otherwise or nothing was heard for the
// timeout. heard is called for each message.
func (c *client) again(read func(heard func()) error) error {
	wait, last := newBackoff(), c.clock.Now()
	for {
		err := read(func() {
			wait.Reset()
			last = c.clock.Now()
		})
		if status.Code(err) != codes.Unavailable || c.clock.Now().Sub(last) > c.connection.Timeout {
			return err
		}
		if waitErr := c.clock.Wait(c.ctx, wait.NextBackOff()); waitErr != nil {
			return err
		}
	}
}

// watch shows an operation until it ends, and returns an error unless it reached what was asked for.
func (c *client) watch(name string) error {
	shown := newProgress(c.err, c.redraws && !c.json)
	var last *umbrav1.Operation
	err := c.again(func(heard func()) error {
		stream, err := c.failover.WatchOperation(c.ctx, &umbrav1.WatchOperationRequest{Name: name})
		if err != nil {
			return err
		}
		for {
			message, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			heard()
			last = message.GetOperation()
			shown.show(last, c.view())
		}
	})
	shown.end()
	if err != nil {
		if status.Code(err) != codes.NotFound {
			c.say("No longer watching. What was begun goes on; to watch it again:\n  umbra operations watch %s", short(name))
		}
		return err
	}
	return c.ended(last)
}

// ended shows the end of an operation, and what to do next.
func (c *client) ended(operation *umbrav1.Operation) error {
	text := ""
	if !c.json {
		text = operationKind(operation) + " of " + short(operation.GetDrPair()) + ": " + operationState(operation) + " in " + took(operation, c.view()) + "\n"
		if pair, err := c.pair(operation.GetDrPair()); err == nil { // a deleted one is gone
			text += "The pair is " + stateOf(pair) + ".\n\n" + nextText(pair)
		}
	}
	if err := c.print(operation, text); err != nil {
		return err
	}
	if operation.GetState() != umbrav1.OperationState_OPERATION_STATE_SUCCEEDED {
		return failedError{operation}
	}
	return nil
}
