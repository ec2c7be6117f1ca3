package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// pickTries is how often a point is chosen anew because retention has just removed the one that was chosen.
const pickTries = 5

// bootPoint asks for the shadow server to be booted from a point drawn from the list, and checks what the guest finds.
func bootPoint(ctx context.Context, w *world, dice *rand.Rand, kind umbrav1.OperationKind, ask func(context.Context, string, string) (*umbrav1.Operation, error)) error {
	log := w.Shadow.Console(guest)
	if err := log.SkipToEnd(); err != nil {
		return err
	}
	for try := range pickTries {
		points, err := w.points(ctx)
		if err != nil {
			return err
		}
		if len(points) == 0 {
			return fmt.Errorf("%w: no point is listed, and the action is allowed", errPromise)
		}
		point := points[dice.IntN(len(points))]
		if try > 0 || dice.IntN(2) == 0 {
			point = points[0]
		}
		id := fmt.Sprintf("%s-%d", w.requestID(strings.ToLower(kind.String())), try)
		op, err := w.submit(ctx, kind, id, func(ctx context.Context, id string) (*umbrav1.Operation, error) { return ask(ctx, id, point.GetName()) })
		if status.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return fmt.Errorf("asking for %s: %w", point.GetName(), err)
		}
		if err := w.mustSucceed(ctx, op); err != nil {
			return err
		}
		w.booting, w.booted = &booting{log: log, point: point}, point
		return nil
	}
	return fmt.Errorf("%w: no point of the list could be asked for in %d tries", errPromise, pickTries)
}

func failover(ctx context.Context, w *world, dice *rand.Rand) error {
	return bootPoint(ctx, w, dice, umbrav1.OperationKind_OPERATION_KIND_FAILOVER,
		func(ctx context.Context, id, point string) (*umbrav1.Operation, error) {
			answer, err := w.Failover.Failover(ctx, &umbrav1.FailoverRequest{Name: pairName, RecoveryPoint: point, RequestId: id})
			return answer.GetOperation(), err
		})
}

func change(ctx context.Context, w *world, dice *rand.Rand) error {
	return bootPoint(ctx, w, dice, umbrav1.OperationKind_OPERATION_KIND_CHANGE_RECOVERY_POINT,
		func(ctx context.Context, id, point string) (*umbrav1.Operation, error) {
			answer, err := w.Failover.ChangeRecoveryPoint(ctx, &umbrav1.ChangeRecoveryPointRequest{Name: pairName, RecoveryPoint: point, RequestId: id})
			return answer.GetOperation(), err
		})
}

func commit(ctx context.Context, w *world, dice *rand.Rand) error {
	w.history.before.deleting = dice.IntN(2) == 0
	ask := func(ctx context.Context, id string) (*umbrav1.Operation, error) {
		answer, err := w.Failover.CommitFailover(ctx, &umbrav1.CommitFailoverRequest{
			Name: pairName, RequestId: id, DeleteRecoveryPoints: w.history.before.deleting,
		})
		return answer.GetOperation(), err
	}
	op, err := w.submit(ctx, umbrav1.OperationKind_OPERATION_KIND_COMMIT_FAILOVER, w.requestID("commit"), ask)
	if err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	return w.mustSucceed(ctx, op)
}

// remove ends the protection.
func remove(ctx context.Context, w *world, _ *rand.Rand) error {
	w.history.before.deleting = true
	ask := func(ctx context.Context, id string) (*umbrav1.Operation, error) {
		answer, err := w.Protection.DeleteDRPair(ctx, &umbrav1.DeleteDRPairRequest{Name: pairName, RequestId: id})
		return answer.GetOperation(), err
	}
	op, err := w.submit(ctx, umbrav1.OperationKind_OPERATION_KIND_DELETE, w.requestID("delete"), ask)
	if err != nil {
		return fmt.Errorf("deleting the pair: %w", err)
	}
	if err := w.mustSucceed(ctx, op); err != nil {
		return err
	}
	for {
		pair, err := w.pair(ctx)
		if err != nil || pair == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: the pair is still there", errForEver)
		case <-time.After(retryEvery):
		}
	}
}
