package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const (
	actFailover = umbrav1.DRPairAction_DR_PAIR_ACTION_FAILOVER
	actRestart  = umbrav1.DRPairAction_DR_PAIR_ACTION_RESTART_REPLICATION
	actChange   = umbrav1.DRPairAction_DR_PAIR_ACTION_CHANGE_RECOVERY_POINT
	actCommit   = umbrav1.DRPairAction_DR_PAIR_ACTION_COMMIT_FAILOVER
	actPause    = umbrav1.DRPairAction_DR_PAIR_ACTION_PAUSE_REPLICATION
	actResume   = umbrav1.DRPairAction_DR_PAIR_ACTION_RESUME_REPLICATION
	actUpdate   = umbrav1.DRPairAction_DR_PAIR_ACTION_UPDATE
	actDelete   = umbrav1.DRPairAction_DR_PAIR_ACTION_DELETE
)

const (
	// observer is the caller that only looks, in the history of calls.
	observer = 0
	// callMax bounds one call.
	callMax = 10 * time.Second
)

// request is one request of a caller, which may be sent more than once.
type request struct {
	action umbrav1.DRPairAction
	id     string
	point  string // full name, for the two that boot
	points bool   // delete them
}

// answer is what became of a request: the operation's name (or "done" for those without), or a refusal.
type answer struct {
	operation string
	refusal   error
}

// draw makes a request of that kind.
func (w *world) draw(r *rand.Rand, action umbrav1.DRPairAction, points []*umbrav1.RecoveryPoint) request {
	q := request{action: action, id: fmt.Sprintf("r-%x", r.Uint64()), points: r.IntN(2) == 0}
	if len(points) > 0 {
		q.point = points[r.IntN(len(points))].GetName()
	}
	return q
}

// once sends a request once.
func (w *world) once(ctx context.Context, q request) (string, error) {
	ctx, stop := context.WithTimeout(ctx, callMax)
	defer stop()
	name := "drPairs/" + w.subject.id
	switch q.action {
	case actFailover:
		got, err := w.failover.Failover(ctx, &umbrav1.FailoverRequest{Name: name, RecoveryPoint: q.point, RequestId: q.id})
		return got.GetOperation().GetName(), err
	case actRestart:
		got, err := w.failover.RestartReplication(ctx, &umbrav1.RestartReplicationRequest{Name: name, DeleteRecoveryPoints: q.points, RequestId: q.id})
		return got.GetOperation().GetName(), err
	case actChange:
		got, err := w.failover.ChangeRecoveryPoint(ctx, &umbrav1.ChangeRecoveryPointRequest{Name: name, RecoveryPoint: q.point, RequestId: q.id})
		return got.GetOperation().GetName(), err
	case actCommit:
		got, err := w.failover.CommitFailover(ctx, &umbrav1.CommitFailoverRequest{Name: name, DeleteRecoveryPoints: q.points, RequestId: q.id})
		return got.GetOperation().GetName(), err
	case actDelete:
		got, err := w.protection.DeleteDRPair(ctx, &umbrav1.DeleteDRPairRequest{Name: name, RequestId: q.id})
		return got.GetOperation().GetName(), err
	case actPause:
		_, err := w.protection.PauseReplication(ctx, &umbrav1.PauseReplicationRequest{Name: name, RequestId: q.id})
		return "done", err
	case actResume:
		_, err := w.protection.ResumeReplication(ctx, &umbrav1.ResumeReplicationRequest{Name: name, RequestId: q.id})
		return "done", err
	}
	return "", fmt.Errorf("nobody asks for %s", q.action)
}

// ask sends a request until it is answered for certain: carried out, or refused. A caller that gets no answer does the same.
func (w *world) ask(ctx context.Context, caller int, q request) (answer, error) {
	called := time.Since(w.told.began).Nanoseconds()
	for {
		operation, err := w.once(ctx, q)
		switch {
		case err == nil && operation == "":
			return answer{}, fmt.Errorf("%s was answered without an operation", q.action)
		case err == nil:
			w.tell(caller, q, answer{operation: operation}, called)
			return answer{operation: operation}, nil
		case isRefusal(err):
			w.tell(caller, q, answer{refusal: err}, called)
			return answer{refusal: err}, nil
		case !passing(err):
			return answer{}, fmt.Errorf("%s is answered with what it must never be: %w", q.action, err)
		}
		if rest(ctx) != nil {
			return answer{}, fmt.Errorf("%s gets no answer: %w", q.action, err)
		}
	}
}

// passing tells whether a call may be answered otherwise the next time.
func passing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted:
		return true
	}
	return false
}

// isRefusal tells whether a call was answered for good.
func isRefusal(err error) bool {
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.NotFound, codes.AlreadyExists:
		return true
	}
	return false
}

// tell notes a call for the check of the whole history.
func (w *world) tell(caller int, q request, a answer, called int64) {
	if q.action == actPause || q.action == actResume {
		return // they make no operation
	}
	w.told.Lock()
	defer w.told.Unlock()
	w.told.calls = append(w.told.calls, porcupine.Operation{
		ClientId: caller, Input: call{pair: w.subject.id, request: q.id, joins: q.action == actDelete}, Call: called,
		Output: a.operation, Return: time.Since(w.told.began).Nanoseconds(),
	})
}

// pair reads the pair. It is nil when there is none any more.
func (w *world) pair(ctx context.Context, caller int) (*umbrav1.DRPair, error) {
	for {
		called := time.Since(w.told.began).Nanoseconds()
		bounded, stop := context.WithTimeout(ctx, callMax)
		got, err := w.failover.GetDRPair(bounded, &umbrav1.GetDRPairRequest{Name: "drPairs/" + w.subject.id})
		stop()
		if err == nil {
			w.told.Lock()
			w.told.calls = append(w.told.calls, porcupine.Operation{
				ClientId: caller, Input: call{pair: w.subject.id}, Call: called,
				Output: got.GetDrPair().GetCurrentOperation(), Return: time.Since(w.told.began).Nanoseconds(),
			})
			w.told.Unlock()
			return got.GetDrPair(), nil
		}
		if status.Code(err) == codes.NotFound {
			return nil, nil
		}
		if !passing(err) {
			return nil, fmt.Errorf("reading the pair: %w", err)
		}
		if cause := rest(ctx); cause != nil {
			return nil, fmt.Errorf("reading the pair: %w", errors.Join(err, cause))
		}
	}
}

// points lists the pair's points, newest first.
func (w *world) points(ctx context.Context) ([]*umbrav1.RecoveryPoint, error) {
	for {
		bounded, stop := context.WithTimeout(ctx, callMax)
		got, err := w.failover.ListRecoveryPoints(bounded, &umbrav1.ListRecoveryPointsRequest{Parent: "drPairs/" + w.subject.id, PageSize: 1000})
		stop()
		if err == nil {
			return got.GetRecoveryPoints(), nil
		}
		if !passing(err) {
			return nil, fmt.Errorf("listing the points: %w", err)
		}
		if cause := rest(ctx); cause != nil {
			return nil, fmt.Errorf("listing the points: %w", errors.Join(err, cause))
		}
	}
}

func baseName(name string) string { return name[strings.LastIndex(name, "/")+1:] }
