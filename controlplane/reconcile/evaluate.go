package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/store"
)

const (
	// beat is how exactly time-outs are kept.
	beat = 200 * time.Millisecond
	// eventsMax bounds what one evaluation may do to a pair; a failover takes three.
	eventsMax = 16
)

// waiting is a step that a pair is in, and since when this process has seen it there. After a restart the step has
// its whole budget again: a wall clock that jumps can end no step early.
type waiting struct {
	operation string
	step      drpair.StepKind
	since     time.Time
}

// Run evaluates pairs when they, their reports or their hosts' connections change, and when something is due, until the
// context ends.
func (e *Engine) Run(ctx context.Context) error {
	records, reports, hosts := e.Records.Feed().Subscribe(), e.Observed.Pairs().Subscribe(), e.Observed.Connections().Subscribe()
	defer records.Close()
	defer reports.Close()
	defer hosts.Close()
	ticker := e.Clock.NewTicker(beat)
	defer ticker.Stop()
	due := map[string]time.Time{}
	for _, entry := range e.Records.List() {
		due[entry.Record.Pair.ID] = time.Time{}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-records.C():
			mark(due, records.Take())
		case <-reports.C():
			mark(due, reports.Take())
		case <-hosts.C():
			e.markHosts(due, hosts.Take())
		case <-ticker.C:
		}
		now := e.Clock.Now()
		for pair, at := range due {
			if now.Before(at) {
				continue
			}
			delete(due, pair)
			if next, again := e.evaluate(ctx, pair); again {
				due[pair] = next
			}
		}
	}
}

func mark(due map[string]time.Time, pairs []string) {
	for _, pair := range pairs {
		due[pair] = time.Time{}
	}
}

func (e *Engine) markHosts(due map[string]time.Time, hosts []string) {
	changed := map[string]bool{}
	for _, host := range hosts {
		changed[host] = true
	}
	for _, entry := range e.Records.List() {
		if p := entry.Record.Pair; changed[p.Main.Host] || changed[p.Shadow.Host] {
			due[p.ID] = time.Time{}
		}
	}
}

// evaluate applies to a pair all that is known, until nothing is news. It returns when to look again, if something
// will be due.
func (e *Engine) evaluate(ctx context.Context, pair string) (next time.Time, again bool) {
	entry, ok := e.Records.Get(pair)
	if !ok {
		e.Observed.Forget(pair)
		delete(e.waiting, pair)
		return time.Time{}, false
	}
	for range eventsMax {
		events, at, pending := e.events(entry.Record)
		next, again = at, pending
		stored, news, err := e.applyFirstNews(ctx, entry, events)
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
			if ctx.Err() == nil {
				e.Log.Warn("pair not evaluated, trying again", "pair", pair, "error", err)
			}
			return e.Clock.Now().Add(time.Second), true
		case !news:
			return next, again
		}
		entry = stored
	}
	return e.Clock.Now().Add(beat), true
}

// applyFirstNews stores what the first event that says something new makes of the record.
func (e *Engine) applyFirstNews(ctx context.Context, entry store.Entry, events []drpair.Event) (store.Entry, bool, error) {
	for _, event := range events {
		change, err := drpair.Apply(entry.Record, event, e.Clock.Now())
		if err != nil {
			return entry, false, err
		}
		if !change.Changed {
			continue
		}
		stored, err := e.Store.Commit(ctx, entry, change, store.RequestKey{})
		if err != nil {
			return entry, false, err
		}
		e.logChange(eventName(event), entry.Record, change)
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
	default:
		return "event"
	}
}
