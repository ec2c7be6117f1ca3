// Package audit keeps the log of calls that change something: who, what, from where, the request id, the outcome. An
// event is stored in etcd before its call acts, where all control planes and the API see it, and completed once; and
// each control plane writes the events of its own calls, when they are complete, as JSON lines to wherever the operator
// keeps them.
//
// It promises that nothing is changed by a call that the log could not take. What is lost when a process ends in the
// middle of a call is the outcome, never the call.
package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/controlplane/access"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
)

const (
	// completeTimeout bounds how long an outcome may take to be stored.
	completeTimeout = 5 * time.Second
	// refusedEvery and refusedBurst bound the refused calls that are noted, so that nobody fills the store with calls that
	// change nothing. Those of unknown callers cannot push out those of known ones.
	refusedEvery    = 10 * time.Second
	refusedBurst    = 200
	messageBytesMax = 1024
)

// Store keeps events. *store.Store is one.
type Store interface {
	AppendAudit(ctx context.Context, event store.AuditEvent) (revision int64, err error)
	CompleteAudit(ctx context.Context, event store.AuditEvent, revision int64) error
}

// Log is the log. It is safe for concurrent use. Make it with New.
type Log struct {
	store Store
	clock clock.Clock
	log   *slog.Logger

	mu               sync.Mutex
	lines            io.Writer
	strangers, known allowance
}

// New makes a log that writes complete events to lines as well, each in one write. lines may be nil.
func New(store Store, clock clock.Clock, log *slog.Logger, lines io.Writer) *Log {
	if lines == nil {
		lines = io.Discard
	}
	return &Log{store: store, clock: clock, log: log, lines: lines, strangers: newAllowance(), known: newAllowance()}
}

// Begin notes a call before it acts.
func (l *Log) Begin(ctx context.Context, caller access.Caller, method string, request any) (end func(response any, err error), err error) {
	event := l.event(ctx, caller, method, request)
	revision, err := l.store.AppendAudit(ctx, event)
	if err != nil {
		return nil, err
	}
	return func(response any, err error) {
		event := event
		event.EndTime = l.clock.Now()
		l.outcome(&event, response, err)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), completeTimeout)
		defer cancel()
		if err := l.store.CompleteAudit(bounded, event, revision); err != nil {
			l.log.Error("the outcome of a call is missing in the audit log", "event", event, "error", err)
		}
		l.line(event)
	}, nil
}

// Refused notes a call that was refused. When there are too many they are counted only.
func (l *Log) Refused(ctx context.Context, caller access.Caller, method string, request any, refused error) {
	event := l.event(ctx, caller, method, request)
	event.EndTime = event.Time
	l.outcome(&event, nil, refused)
	if !l.room(caller, &event) {
		return
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), completeTimeout)
	defer cancel()
	if _, err := l.store.AppendAudit(bounded, event); err != nil {
		l.log.Error("a refused call is missing in the audit log", "event", event, "error", err)
	}
	l.line(event)
}

// allowance says how many refused calls are noted.
type allowance struct {
	rate    *rate.Limiter
	omitted int64 // since the last that was noted
}

func newAllowance() allowance {
	return allowance{rate: rate.NewLimiter(rate.Every(refusedEvery), refusedBurst)}
}

// room tells whether another refused call is noted; the event then says how many before it were not.
func (l *Log) room(caller access.Caller, event *store.AuditEvent) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	allowed := &l.known
	if caller.Kind == access.Nobody {
		allowed = &l.strangers
	}
	if !allowed.rate.AllowN(event.Time, 1) {
		allowed.omitted++
		return false
	}
	event.Omitted, allowed.omitted = allowed.omitted, 0
	return true
}

func (l *Log) event(ctx context.Context, caller access.Caller, method string, request any) store.AuditEvent {
	now := l.clock.Now()
	event := store.AuditEvent{
		ID: store.NewAuditID(now), Time: now, Caller: caller.Name, Address: access.Address(ctx), Method: method,
	}
	describe(&event, request)
	return event
}

// outcome notes how a call ended.
func (l *Log) outcome(event *store.AuditEvent, response any, err error) {
	made := status.Convert(err)
	event.Code, event.Message = made.Code(), cut(made.Message(), messageBytesMax)
	for _, detail := range made.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			event.Reason = info.GetReason()
		}
	}
	if begun, ok := response.(interface{ GetOperation() *umbrav1.Operation }); ok && err == nil {
		event.Operation = begun.GetOperation().GetName()
	}
}

// line writes an event as one line.
func (l *Log) line(event store.AuditEvent) {
	data, err := json.Marshal(event)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		_, err = l.lines.Write(append(data, '\n'))
	}
	if err != nil {
		l.log.Error("an event is missing in the audit file; the audit log has it", "event", event.ID, "error", fmt.Errorf("write the audit file: %w", err))
	}
}
