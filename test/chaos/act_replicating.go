package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/test/landscape"
)

// keepAll is the age up to which the policy keeps every point.
const keepAll = time.Minute

// policy has points every second, and one of the three ways to treat a main server that returns.
func policy(dice *rand.Rand) *umbrav1.Policy {
	ways := []umbrav1.OnMainReturn{
		umbrav1.OnMainReturn_ON_MAIN_RETURN_SHUT_DOWN, umbrav1.OnMainReturn_ON_MAIN_RETURN_DISCONNECT_NETWORK,
		umbrav1.OnMainReturn_ON_MAIN_RETURN_LEAVE_RUNNING,
	}
	return &umbrav1.Policy{
		Interval:     durationpb.New(time.Second),
		OnMainReturn: ways[dice.IntN(len(ways))],
		Verification: &umbrav1.VerificationPolicy{RunTime: durationpb.New(time.Second)},
		Retention: &umbrav1.RetentionPolicy{Rules: []*umbrav1.RetentionRule{
			{MaxAge: durationpb.New(keepAll)},
			{MaxAge: durationpb.New(10 * keepAll), Spacing: durationpb.New(keepAll / 2)},
		}},
	}
}

// protect makes the pair. The initial sync begins at once.
func protect(ctx context.Context, w *world, dice *rand.Rand) error {
	w.history = history{lives: w.history.lives + 1, policy: policy(dice), copies: map[string][]string{}}
	request := &umbrav1.CreateDRPairRequest{DrPairId: pairID, RequestId: w.requestID("protect"), DrPair: &umbrav1.DRPair{
		Main:   &umbrav1.MainServer{Host: "hosts/" + landscape.MainHost, Server: guest},
		Shadow: &umbrav1.ShadowServer{Host: "hosts/" + landscape.ShadowHost},
		Policy: w.history.policy,
	}}
	for {
		answer, err := w.Protection.CreateDRPair(ctx, request)
		if err == nil {
			w.history.epoch = answer.GetDrPair().GetEpoch()
			break
		}
		// The preflight looks at both hosts: it refuses while one of them cannot be looked at.
		if code := status.Code(err); !passes(err) && code != codes.FailedPrecondition || ctx.Err() != nil {
			return fmt.Errorf("protecting the server: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
	return w.nextPoint(ctx)
}

// replicate waits for a point that was begun after the fault was mended.
func replicate(ctx context.Context, w *world, _ *rand.Rand) error {
	select {
	case <-w.mended:
	case <-ctx.Done():
		return ctx.Err()
	}
	return w.nextPoint(ctx)
}

// nextPoint waits for a point that is begun from now on.
func (w *world) nextPoint(ctx context.Context) error {
	now := time.Now()
	_, err := w.WaitPair(ctx, pairID, func(p *umbrav1.DRPair) bool {
		return p.GetState() == replicating && p.GetReplication().GetNewestRecoveryPointTime().AsTime().After(now)
	})
	if err != nil {
		return fmt.Errorf("waiting for a new recovery point: %w", err)
	}
	return nil
}

// copyDisks makes an independent copy of the main disks while they stand still, to be compared with the point of then.
func copyDisks(ctx context.Context, w *world, _ *rand.Rand) error {
	select {
	case <-w.mended:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := w.nextPoint(ctx); err != nil {
		return err
	}
	if _, err := w.Main.Virsh(ctx, "suspend", guest); err != nil {
		return err
	}
	resume := func() error { _, err := w.Main.Virsh(ctx, "resume", guest); return err }
	if err := w.nextPoint(ctx); err != nil {
		return errors.Join(err, resume())
	}
	points, err := w.points(ctx)
	if err != nil || len(points) == 0 {
		return errors.Join(err, resume())
	}
	var copies []string
	for i := range guestSpec().DiskBytes {
		target := "vd" + string(rune('a'+i))
		raw := filepath.Join(w.cfg.Dir, fmt.Sprintf("copy-%d-%s.raw", w.now.Number, target))
		from := filepath.Join(w.Main.ImagesDir(), guest+"-"+target+".qcow2")
		if out, err := exec.CommandContext(ctx, "qemu-img", "convert", "-U", "-O", "raw", from, raw).CombinedOutput(); err != nil {
			return errors.Join(fmt.Errorf("copying %s: %w: %s", from, err, out), resume())
		}
		copies = append(copies, raw)
	}
	w.history.copies[points[0].GetName()] = copies
	return resume()
}

// dropCopies removes the copies of a pair that is gone.
func (w *world) dropCopies() {
	for _, copies := range w.history.copies {
		for _, raw := range copies {
			_ = os.Remove(raw) // the folder goes at the end anyway
		}
	}
	w.history.copies = map[string][]string{}
}

// pause pauses replication and resumes it.
func pause(ctx context.Context, w *world, _ *rand.Rand) error {
	if err := w.pauseReplication(ctx, "pause"); err != nil {
		return err
	}
	if err := w.resumeReplication(ctx, "pause"); err != nil {
		return err
	}
	return w.nextPoint(ctx)
}

func (w *world) pauseReplication(ctx context.Context, why string) error {
	_, err := persist(ctx, w.requestID(why+"-pause"), func(ctx context.Context, id string) (*umbrav1.DRPair, error) {
		answer, err := w.Protection.PauseReplication(ctx, &umbrav1.PauseReplicationRequest{Name: pairName, RequestId: id})
		return answer.GetDrPair(), err
	})
	if err != nil {
		return fmt.Errorf("pausing replication: %w", err)
	}
	return nil
}

func (w *world) resumeReplication(ctx context.Context, why string) error {
	_, err := persist(ctx, w.requestID(why+"-resume"), func(ctx context.Context, id string) (*umbrav1.DRPair, error) {
		answer, err := w.Protection.ResumeReplication(ctx, &umbrav1.ResumeReplicationRequest{Name: pairName, RequestId: id})
		return answer.GetDrPair(), err
	})
	if err != nil {
		return fmt.Errorf("resuming replication: %w", err)
	}
	return nil
}

// restart starts replication from the beginning.
func restart(ctx context.Context, w *world, dice *rand.Rand) error {
	w.history.before.deleting = dice.IntN(3) == 0
	ask := func(ctx context.Context, id string) (*umbrav1.Operation, error) {
		answer, err := w.Failover.RestartReplication(ctx, &umbrav1.RestartReplicationRequest{
			Name: pairName, RequestId: id, DeleteRecoveryPoints: w.history.before.deleting,
		})
		return answer.GetOperation(), err
	}
	op, err := w.submit(ctx, umbrav1.OperationKind_OPERATION_KIND_RESTART_REPLICATION, w.requestID("restart"), ask)
	if err != nil {
		return fmt.Errorf("restarting replication: %w", err)
	}
	if err := w.mustSucceed(ctx, op); err != nil {
		return err
	}
	return w.nextPoint(ctx)
}

// requestID names a request of this cycle.
func (w *world) requestID(what string) string {
	return fmt.Sprintf("%d-%d-%d-%s", w.cfg.Seed, w.history.lives, w.now.Number, what)
}

// mustSucceed waits for the end of an operation, which may fail only by a fault that may make it fail.
func (w *world) mustSucceed(ctx context.Context, op *umbrav1.Operation) error {
	ended, err := w.ended(ctx, op.GetName())
	if err != nil {
		return err
	}
	fault, _ := faultNamed(w.now.Fault)
	switch {
	case ended.GetState() == umbrav1.OperationState_OPERATION_STATE_SUCCEEDED:
		return nil
	case ended.GetFailure().GetReason() == 0 || len(ended.GetFailure().GetRecommendedActions()) == 0:
		return fmt.Errorf("the operation ended without a reason and what to do: %v", ended)
	case !fault.ShadowServerMayFail || !slices.Contains(shadowKinds, ended.GetKind()):
		return fmt.Errorf("the operation failed by a fault that may only delay it: %v", ended)
	}
	w.tally.Failed[ended.GetFailure().GetReason().String()]++
	w.note("  the operation failed, as it may: %s", ended.GetFailure().GetMessage())
	return errMayFail
}

// errMayFail says that an operation failed as it may.
var errMayFail = errors.New("the operation failed, as it may by this fault")

// shadowKinds are the operations that boot the shadow server.
var shadowKinds = []umbrav1.OperationKind{
	umbrav1.OperationKind_OPERATION_KIND_FAILOVER, umbrav1.OperationKind_OPERATION_KIND_CHANGE_RECOVERY_POINT,
}
