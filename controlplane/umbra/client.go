package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// client is what a command works with.
type client struct {
	console
	ctx        context.Context // the life of one command line, which kong hands to it as a whole
	json       bool
	connection connection // as it was given
	failover   umbrav1.FailoverServiceClient
	protection umbrav1.ProtectionServiceClient
	hosts      umbrav1.HostServiceClient
	identity   umbrav1.IdentityServiceClient
	audit      umbrav1.AuditServiceClient
}

func newClient(ctx context.Context, conn *grpc.ClientConn, at console, line commands) *client {
	return &client{
		console: at, ctx: ctx, json: line.Output == "json", connection: line.Connection,
		failover: umbrav1.NewFailoverServiceClient(conn), protection: umbrav1.NewProtectionServiceClient(conn),
		hosts: umbrav1.NewHostServiceClient(conn), identity: umbrav1.NewIdentityServiceClient(conn), audit: umbrav1.NewAuditServiceClient(conn),
	}
}

// call makes a call, and makes it again, the same, while the control plane cannot be reached, for as long as the timeout.
// A request that changes something carries an id, so it is carried out once however often it arrives.
func call[Q, A any](c *client, method func(context.Context, Q, ...grpc.CallOption) (A, error), request Q) (A, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.connection.Timeout)
	defer cancel()
	answered := c.announce(ctx)
	defer answered()
	var last error
	answer, err := backoff.Retry(ctx, func() (A, error) {
		answer, err := method(ctx, request)
		switch {
		case err == nil:
		case status.Code(err) != codes.Unavailable:
			err = backoff.Permanent(err)
		default:
			last = err
		}
		return answer, err
	}, backoff.WithBackOff(newBackoff()), backoff.WithMaxElapsedTime(c.connection.Timeout))
	if err != nil && last != nil && ctx.Err() != nil {
		err = last // says more than that time is up
	}
	if c.ctx.Err() == nil && isSilence(err) {
		err = silenceError{c.connection, err}
	}
	return answer, err
}

// quietMax is how long a person is left without a word.
const quietMax = 3 * time.Second

// announce says what is waited for, once, when that takes long. The caller says when it is over.
func (c *client) announce(ctx context.Context) (over func()) {
	ctx, cancel := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if c.clock.Wait(ctx, quietMax) == nil {
			c.say("Waiting for the control plane at %s to answer, for at most %s (--timeout).", c.connection.Server, c.connection.Timeout)
		}
	})
	return func() {
		cancel()
		waiting.Wait()
	}
}

const (
	retryMin = 100 * time.Millisecond
	retryMax = 3 * time.Second
)

func newBackoff() *backoff.ExponentialBackOff {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = retryMin, retryMax
	return wait
}

const pageSize = 1000

// pages joins the pages of a list, up to most items; 0 is no limit.
func pages[T any](most int, page func(token string) ([]T, string, error)) ([]T, error) {
	var all []T
	token := ""
	for {
		some, next, err := page(token)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if most > 0 && len(all) >= most {
			return all[:most], nil
		}
		if next == "" {
			return all, nil
		}
		token = next
	}
}

// print shows the message as JSON, or as the text, whichever was asked for.
func (c *client) print(message proto.Message, text string) error {
	if c.json {
		data, err := protojson.Marshal(message)
		if err != nil {
			return fmt.Errorf("encoding the answer: %w", err)
		}
		var stable bytes.Buffer // protojson varies its spaces on purpose
		if err := json.Indent(&stable, data, "", "  "); err != nil {
			return fmt.Errorf("encoding the answer: %w", err)
		}
		text = stable.String()
	}
	_, err := fmt.Fprintln(c.out, strings.TrimRight(text, "\n"))
	return err
}

// say tells a person something beside the answer.
func (c *client) say(format string, args ...any) { _, _ = fmt.Fprintf(c.err, format+"\n", args...) }

// full is the full name of a resource that may be given short.
func full(prefix, name string) string {
	if strings.HasPrefix(name, prefix) {
		return name
	}
	return prefix + name
}

func pairName(name string) string      { return full("drPairs/", name) }
func hostName(name string) string      { return full("hosts/", name) }
func operationName(name string) string { return full("operations/", name) }

func pointName(pair, name string) string {
	if name == "" || strings.HasPrefix(name, "drPairs/") {
		return name
	}
	return pairName(pair) + "/recoveryPoints/" + name
}

// short is the last part of a name.
func short(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }
