package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// mainReturns has the main host fail and return after a failover, its server started by hand, and sees what each
// on_main_return makes of that: the three in the order in which each has something left to do.
func mainReturns(ctx context.Context, w *world, _ *rand.Rand) error {
	if err := w.Main.Kill(ctx); err != nil {
		return err
	}
	if err := w.Main.Revive(ctx); err != nil {
		return err
	}
	for _, r := range returns {
		if err := w.onMainReturn(ctx, r.way); err != nil {
			return err
		}
		if err := eventually(ctx, fenceMax, func(ctx context.Context) error { return w.returned(ctx, r) }); err != nil {
			return fmt.Errorf("%v: %w", r.way, err)
		}
		w.note("  %v: as it should be", r.way)
	}
	return nil
}

// returns are the three ways to treat a main server that returns, and what is true then.
var returns = []returnedServer{
	{umbrav1.OnMainReturn_ON_MAIN_RETURN_LEAVE_RUNNING, true, "is left so"},
	{umbrav1.OnMainReturn_ON_MAIN_RETURN_DISCONNECT_NETWORK, true, "without a network"},
	{umbrav1.OnMainReturn_ON_MAIN_RETURN_SHUT_DOWN, false, "was shut down"},
}

type returnedServer struct {
	way  umbrav1.OnMainReturn
	runs bool
	says string // on the pair
}

// returned tells whether the main server is as it should be, and the pair says so. Its user starts it meanwhile: the
// host may still be following the policy of before.
func (w *world) returned(ctx context.Context, r returnedServer) error {
	runs := w.serverRuns(ctx, w.Main)
	if r.runs && !runs {
		if _, err := w.Main.Virsh(ctx, "start", guest); err != nil {
			return err
		}
	}
	if runs != r.runs {
		return fmt.Errorf("that the main server runs is %v", runs)
	}
	if err := w.fenced(ctx); err != nil {
		return err
	}
	pair, err := w.pair(ctx)
	if err != nil {
		return err
	}
	for _, c := range pair.GetConditions() {
		if c.GetType() == "Fenced" && c.GetStatus() == umbrav1.ConditionStatus_CONDITION_STATUS_TRUE && strings.Contains(c.GetMessage(), r.says) {
			return nil
		}
	}
	return fmt.Errorf("the pair does not say that the main server %s: %v", r.says, pair.GetConditions())
}

// onMainReturn changes the policy, which an API client may do after a failover, too.
func (w *world) onMainReturn(ctx context.Context, way umbrav1.OnMainReturn) error {
	changed := proto.CloneOf(w.history.policy)
	changed.OnMainReturn = way
	_, err := w.Protection.UpdateDRPair(ctx, &umbrav1.UpdateDRPairRequest{DrPair: &umbrav1.DRPair{Name: pairName, Policy: changed}})
	if err != nil {
		return fmt.Errorf("changing the policy: %w", err)
	}
	w.history.policy = changed
	return nil
}
