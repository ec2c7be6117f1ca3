// Package reconcile brings requests and reports to the pairs. Any number of control planes run it at once; what a host
// reports is brought by the one that has its session. It is the only writer of pair records: it reads a
// record, asks drpair what becomes of it, and stores the answer with a compare-and-swap, again and again until it
// holds. It is level-triggered: whatever happened, a pair is evaluated from its record, the last reports of its hosts
// and whether they are connected, so nothing depends on an event not being lost or not arriving twice.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/store"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/feed"
	"github.com/umbra-dr/umbra/pkg/telemetry"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// Store is where records are written. *store.Store is one.
type Store interface {
	Pair(ctx context.Context, id string) (store.Entry, error)
	Create(ctx context.Context, rec drpair.Record, key store.RequestKey) (store.Entry, error)
	Commit(ctx context.Context, old store.Entry, change drpair.Change, key store.RequestKey, sessions ...store.Session) (store.Entry, error)
	Request(ctx context.Context, key store.RequestKey) (store.RequestRecord, bool, error)
	Operation(ctx context.Context, id string) (drpair.Operation, error)
}

// Records is the cached picture of the store. *store.Cache is one.
type Records interface {
	Get(id string) (store.Entry, bool)
	List() []store.Entry
	ByHost(host string) []store.Entry
	Feed() *feed.Feed[string]
}

// Config is what an Engine works with.
type Config struct {
	Store    Store
	Records  Records
	Observed *observed.Hosts
	// Self is the id of this control plane, as holder of the sessions in Observed.
	Self  string
	Clock clock.Clock
	Log   *slog.Logger
	// Tracer gets the spans of operations. Without it there are none.
	Tracer trace.Tracer
	// UnreachableAfter is how long a host may be without a session before its pairs say so.
	UnreachableAfter time.Duration
}

// Engine is safe for concurrent use.
type Engine struct {
	Config
	steps     *steppings
	durations *prometheus.HistogramVec
}

// New makes an engine. Run it to have reports taken up and time-outs kept.
func New(cfg Config) *Engine {
	if cfg.Tracer == nil {
		cfg.Tracer = tracing.Off()
	}
	return &Engine{Config: cfg, steps: newSteppings(), durations: newDurations()}
}

// ErrETag means that the pair is not what the caller has read.
var ErrETag = errors.New("the pair has changed since it was read")

const commitTriesMax = 16

// Request is a request of a caller on a pair.
type Request struct {
	Pair string
	// ETag is what the pair must have; empty for any.
	ETag string
	// Key makes a repeated request find the first one's result. Empty ID for no such promise.
	Key store.RequestKey
	// Event makes the event. It gets the id for the operation that it starts, if it starts one.
	Event func(operationID string) drpair.Event
}

// Request applies a request, exactly once for each key, and returns the record that resulted; for a repeated request
// the pair as it is now with the operation of the first. Errors: store.ErrNotFound, ErrETag, *drpair.NotAllowedError,
// *store.RequestReusedError, or what went wrong with the store.
func (e *Engine) Request(ctx context.Context, req Request) (drpair.Record, error) {
	operationID := store.NewOperationID(e.Clock.Now())
	for range commitTriesMax {
		rec, found, err := e.repeated(ctx, req.Key)
		if err != nil || found {
			return rec, err
		}
		entry, change, err := e.decide(ctx, req, operationID)
		if err != nil {
			// The same request may have been carried out since it was looked for, and be what is in its own way.
			if rec, found, lookupErr := e.repeated(ctx, req.Key); lookupErr == nil && found {
				return rec, nil
			}
			return drpair.Record{}, err
		}
		stored, err := e.Store.Commit(ctx, entry, change, req.Key)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return drpair.Record{}, fmt.Errorf("storing the request on pair %s: %w", req.Pair, err)
		}
		e.logChange("request", entry.Record, change)
		e.noteEnds(entry.Record, change)
		return stored.Record, nil
	}
	return drpair.Record{}, fmt.Errorf("storing the request on pair %s: %w", req.Pair, store.ErrConflict)
}

// decide reads the pair and finds what the request makes of it.
func (e *Engine) decide(ctx context.Context, req Request, operationID string) (store.Entry, drpair.Change, error) {
	entry, err := e.Store.Pair(ctx, req.Pair)
	if err != nil {
		return store.Entry{}, drpair.Change{}, err
	}
	if req.ETag != "" && req.ETag != store.ETag(entry.Record.Pair) {
		return store.Entry{}, drpair.Change{}, ErrETag
	}
	change, err := drpair.Apply(entry.Record, req.Event(operationID), e.Clock.Now())
	return entry, change, err
}

// Create stores a new pair, exactly once for each key. Errors as of store.Create.
func (e *Engine) Create(ctx context.Context, rec drpair.Record, key store.RequestKey) (drpair.Record, error) {
	for range commitTriesMax {
		first, found, err := e.repeated(ctx, key)
		if err != nil || found {
			return first, err
		}
		stored, err := e.Store.Create(ctx, rec, key)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return drpair.Record{}, err
		}
		e.about(rec).Info("pair created", "main", rec.Pair.Main.Host, "shadow", rec.Pair.Shadow.Host, "server", rec.Pair.Main.Server)
		return stored.Record, nil
	}
	return drpair.Record{}, fmt.Errorf("storing pair %s: %w", rec.Pair.ID, store.ErrConflict)
}

// repeated finds what an earlier request of the same key led to.
func (e *Engine) repeated(ctx context.Context, key store.RequestKey) (drpair.Record, bool, error) {
	if key.ID == "" {
		return drpair.Record{}, false, nil
	}
	first, found, err := e.Store.Request(ctx, key)
	if err != nil || !found {
		return drpair.Record{}, false, err
	}
	var rec drpair.Record
	entry, err := e.Store.Pair(ctx, first.Pair)
	switch {
	case err == nil:
		rec = entry.Record
	case errors.Is(err, store.ErrNotFound): // deleted meanwhile; its operation is still known
		rec.Pair.ID = first.Pair
	default:
		return drpair.Record{}, false, err
	}
	if first.Operation != "" {
		op, err := e.Store.Operation(ctx, first.Operation)
		if err != nil {
			return drpair.Record{}, false, err
		}
		rec.Operation = &op
	}
	return rec, true, nil
}

// about is a log of lines about a pair as it is in a record.
func (e *Engine) about(rec drpair.Record) *slog.Logger {
	log := e.Log.With(telemetry.KeyPair, rec.Pair.ID, telemetry.KeyEpoch, rec.Pair.Epoch)
	in := tracing.TraceID(rec.Pair.TraceParent)
	if op := rec.Operation; op != nil {
		log, in = log.With(telemetry.KeyOperation, op.ID), tracing.OfOperation(op.ID, op.TraceParent).TraceID()
	}
	if in != "" {
		log = log.With(telemetry.KeyTraceID, in)
	}
	return log
}

func (e *Engine) logChange(cause string, before drpair.Record, change drpair.Change) {
	log := e.about(change.Record)
	if before.Pair.State != change.Pair.State || change.Remove {
		args := []any{"from", before.Pair.State, "to", change.Pair.State, "cause", cause, "removed", change.Remove}
		if failure := change.Pair.Failure; failure != nil {
			args = append(args, "reason", failure.Reason, "message", failure.Message)
		}
		log.Info("pair state changed", args...)
		return
	}
	log.Debug("pair changed", "state", change.Pair.State, "cause", cause)
}
