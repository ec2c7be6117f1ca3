package reconcile

import (
	"sync"
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
)

// steppings remembers since when this process has seen each pair in its step. After a restart the step has its whole
// budget again: a wall clock that jumps can end no step early. It is safe for concurrent use.
type steppings struct {
	mu    sync.Mutex
	begin time.Time
	pairs map[string]stepping
}

type stepping struct {
	operation string
	step      drpair.StepKind
	since     time.Time
}

func newSteppings() *steppings { return &steppings{pairs: map[string]stepping{}} }

// start notes when the engine began.
func (s *steppings) start(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin = now
}

func (s *steppings) began() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begin
}

// since is when the operation was first seen in the step, which is now if it was not before.
func (s *steppings) since(operation *drpair.Operation, step drpair.StepKind, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.pairs[operation.Pair]
	if in.operation != operation.ID || in.step != step {
		in = stepping{operation: operation.ID, step: step, since: now}
		s.pairs[operation.Pair] = in
	}
	return in.since
}

func (s *steppings) forget(pair string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pairs, pair)
}
