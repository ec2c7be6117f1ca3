package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/store"
)

const (
	// storeTimeout bounds how long one evaluation may wait for the store.
	storeTimeout = 5 * time.Second
	// retryAfter is when a pair is looked at again whose evaluation failed.
	retryAfter = time.Second
	// eventsMax bounds what one evaluation may do to a pair; a failover takes three.
	eventsMax = 16
)

// evaluate applies to a pair all that is known, until nothing is news. It returns when to look again, if something
// will be due.
func (e *Engine) evaluate(ctx context.Context, pair string) (next time.Time, again bool) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	entry, ok := e.Records.Get(pair)
	if !ok {
		e.Observed.Forget(pair)
		e.steps.forget(pair)
		return time.Time{}, false
	}
	for range eventsMax {
		findings, at, pending := e.findings(entry.Record)
		next, again = at, pending
		stored, news, err := e.applyFirstNews(ctx, entry, findings)
		switch {
		case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotFound):
			entry, err = e.Store.Pair(ctx, pair)
			if errors.Is(err, store.ErrNotFound) {
				return time.Time{}, false
			}
			if err == nil {
				continue
			}
			fallthrough
		case err != nil:
			if !errors.Is(err, context.Canceled) {
				e.Log.Warn("pair not evaluated, trying again", "pair", pair, "error", err)
			}
			return e.Clock.Now().Add(retryAfter), true
		case !news:
			return next, again
		}
		entry = stored
	}
	return e.Clock.Now().Add(beat), true
}

// applyFirstNews stores what the first finding that says something new makes of the record. One whose session is over
// without this control plane's knowledge says nothing; when it learns of that, the pair is evaluated again.
func (e *Engine) applyFirstNews(ctx context.Context, entry store.Entry, findings []finding) (store.Entry, bool, error) {
	for _, found := range findings {
		change, err := drpair.Apply(entry.Record, found.event, e.Clock.Now())
		if err != nil {
			return entry, false, err
		}
		if !change.Changed {
			continue
		}
		stored, err := e.Store.Commit(ctx, entry, change, store.RequestKey{}, found.sessions...)
		if errors.Is(err, store.ErrSession) {
			e.about(entry.Record).Info("a finding was overtaken", "finding", eventName(found.event), "error", err)
			continue
		}
		if err != nil {
			return entry, false, err
		}
		e.logChange(eventName(found.event), entry.Record, change)
		e.noteEnds(entry.Record, change)
		if change.Remove {
			e.Observed.Forget(entry.Record.Pair.ID)
			return stored, false, nil
		}
		return stored, true, nil
	}
	return entry, false, nil
}

func eventName(event drpair.Event) string {
	switch event.(type) {
	case drpair.MainReported:
		return "main host's report"
	case drpair.ShadowReported:
		return "shadow host's report"
	case drpair.MainUnreachable:
		return "main host not connected"
	case drpair.StepTimeout:
		return "step took too long"
	case drpair.HostsHold:
		return "what the hosts hold"
	default:
		return "event"
	}
}
