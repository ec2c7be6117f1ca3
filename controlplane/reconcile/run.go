package reconcile

import (
	"context"
	"sync"
	"time"
)

const (
	// beat is how exactly time-outs are kept.
	beat = 200 * time.Millisecond
	// parallelMax is how many pairs are evaluated at once: commits of different pairs share the store's syncs.
	parallelMax = 16
	// roundMax bounds how many pairs are evaluated before what has happened meanwhile is looked at.
	roundMax = 256
)

// agenda is which pairs are to be evaluated. It belongs to Run.
type agenda struct {
	urgent map[string]struct{} // with a running operation: someone waits
	rest   map[string]struct{}
	later  map[string]time.Time
}

// Run evaluates pairs when they, their reports or their hosts' connections change, and when something is due, until the
// context ends. It returns nil then.
func (e *Engine) Run(ctx context.Context) error {
	records, reports, hosts := e.Records.Feed().Subscribe(), e.Observed.Pairs().Subscribe(), e.Observed.Connections().Subscribe()
	defer records.Close()
	defer reports.Close()
	defer hosts.Close()
	ticker := e.Clock.NewTicker(beat)
	defer ticker.Stop()
	e.steps.start(e.Clock.Now())
	e.retrace()
	todo := &agenda{urgent: map[string]struct{}{}, rest: map[string]struct{}{}, later: map[string]time.Time{}}
	for _, entry := range e.Records.List() {
		e.mark(todo, entry.Record.Pair.ID)
	}
	more := make(chan struct{}, 1) // has a value while a round has left pairs
	more <- struct{}{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-records.C():
			e.mark(todo, records.Take()...)
		case <-reports.C():
			e.mark(todo, reports.Take()...)
		case <-hosts.C():
			for _, host := range hosts.Take() {
				for _, entry := range e.Records.ByHost(host) {
					e.mark(todo, entry.Record.Pair.ID)
				}
			}
		case <-ticker.C:
			now := e.Clock.Now()
			for pair, at := range todo.later {
				if !now.Before(at) {
					e.mark(todo, pair)
				}
			}
		case <-more:
		}
		e.round(ctx, todo)
		if len(todo.urgent)+len(todo.rest) > 0 {
			select {
			case more <- struct{}{}:
			default:
			}
		}
	}
}

// mark puts pairs on the agenda for now.
func (e *Engine) mark(todo *agenda, pairs ...string) {
	for _, pair := range pairs {
		delete(todo.later, pair)
		if entry, ok := e.Records.Get(pair); ok && entry.Record.Running() != nil {
			todo.urgent[pair] = struct{}{}
			delete(todo.rest, pair)
			continue
		}
		if _, is := todo.urgent[pair]; !is {
			todo.rest[pair] = struct{}{}
		}
	}
}

// take removes at most roundMax pairs from the agenda, the urgent ones first.
func (a *agenda) take() []string {
	var pairs []string
	for _, from := range []map[string]struct{}{a.urgent, a.rest} {
		for pair := range from {
			if len(pairs) == roundMax {
				return pairs
			}
			pairs = append(pairs, pair)
			delete(from, pair)
		}
	}
	return pairs
}

// round evaluates some of the pairs on the agenda, and notes when they are to be looked at again.
func (e *Engine) round(ctx context.Context, todo *agenda) {
	pairs := todo.take()
	var workers sync.WaitGroup
	var mu sync.Mutex // guards todo.later
	queue := make(chan string)
	for range min(parallelMax, len(pairs)) {
		workers.Go(func() {
			for pair := range queue {
				if next, again := e.evaluate(ctx, pair); again {
					mu.Lock()
					todo.later[pair] = next
					mu.Unlock()
				}
			}
		})
	}
	for _, pair := range pairs {
		queue <- pair
	}
	close(queue)
	workers.Wait()
}
