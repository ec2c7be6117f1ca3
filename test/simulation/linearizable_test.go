package simulation_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// call is one call of the API on a pair: a request by its id, or a look at the pair. A deletion joins one that runs.
type call struct {
	pair, request string
	joins         bool
}

// remembered is what a pair is to its callers: which request made which operation, and the operation of now.
type remembered struct {
	requests  map[string]string
	operation string
}

// apiModel is what the API promises: a request makes one operation, however often it is sent, which is the pair's from then on; a
// refused one makes none; and a look shows the newest. The output is an operation's name, "" for a refusal.
var apiModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byPair := map[string][]porcupine.Operation{}
		for _, op := range history {
			pair := op.Input.(call).pair
			byPair[pair] = append(byPair[pair], op)
		}
		return slices.Collect(maps.Values(byPair))
	},
	Init: func() any { return remembered{requests: map[string]string{}} },
	Step: func(state, input, output any) (bool, any) {
		s, c, operation := state.(remembered), input.(call), output.(string)
		if c.request == "" {
			return operation == s.operation, s
		}
		first, known := s.requests[c.request]
		switch {
		case known:
			return operation == first, s
		case operation == "":
			return true, s
		case operation == s.operation && c.joins: // it is now this one's, too
		case slices.Contains(slices.Collect(maps.Values(s.requests)), operation):
			return false, s
		}
		requests := maps.Clone(s.requests)
		requests[c.request] = operation
		return true, remembered{requests: requests, operation: operation}
	},
	Equal: func(a, b any) bool {
		x, y := a.(remembered), b.(remembered)
		return x.operation == y.operation && maps.Equal(x.requests, y.requests)
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %v", input, output) },
}

// checkHistory judges all calls of the world together.
func (w *world) checkHistory() error {
	w.told.Lock()
	defer w.told.Unlock()
	if porcupine.CheckOperationsTimeout(apiModel, w.told.calls, time.Minute) == porcupine.Illegal {
		var all strings.Builder
		for _, op := range w.told.calls {
			fmt.Fprintf(&all, "%d..%d caller %d: %+v -> %v\n", op.Call, op.Return, op.ClientId, op.Input, op.Output)
		}
		return fmt.Errorf("the calls of the API have no order in which each would have been answered so:\n%s", all.String())
	}
	return nil
}
