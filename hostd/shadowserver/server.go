package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

const (
	unavailablePause = time.Second
	unavailableMax   = time.Minute
)

// call makes one call of the hypervisor, bounded, and again while the hypervisor cannot be reached, for up to
// unavailableMax. doing says what was attempted.
func (w *worker) call(ctx context.Context, doing string, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, unavailableMax+callTimeout)
	defer cancel()
	begin := w.cfg.Clock.Now()
	for {
		bounded, cancel := context.WithTimeout(ctx, callTimeout)
		err := do(bounded)
		cancel()
		if err == nil {
			return nil
		}
		err = &hypervisorError{doing: doing, err: err}
		if !errors.Is(err, hypervisor.ErrUnavailable) || ctx.Err() != nil || w.cfg.Clock.Now().Sub(begin) > unavailableMax {
			return err
		}
		if w.cfg.Clock.Wait(ctx, unavailablePause) != nil {
			return err
		}
	}
}

// lookUp finds the server of a name at the hypervisor. One that is not there has power PowerAbsent.
func (w *worker) lookUp(ctx context.Context, name string) (hypervisor.Server, error) {
	s := hypervisor.Server{Power: hypervisor.PowerAbsent}
	err := w.call(ctx, "looking for server "+name, func(ctx context.Context) (err error) {
		s, err = w.cfg.Target.Server(ctx, name)
		if errors.Is(err, hypervisor.ErrNotFound) {
			s, err = hypervisor.Server{Power: hypervisor.PowerAbsent}, nil
		}
		return err
	})
	return s, err
}

// ownServer finds our server and the attempt whose disks it has. It is absent when it is not there, or when what is
// there is not ours: another UUID, or no disk of ours.
func (w *worker) ownServer(ctx context.Context) (hypervisor.Server, uint64, error) {
	absent := hypervisor.Server{Power: hypervisor.PowerAbsent}
	if w.rec.Server == "" {
		return absent, 0, nil
	}
	s, err := w.lookUp(ctx, w.rec.Server)
	if err != nil || s.Power == hypervisor.PowerAbsent {
		return absent, 0, err
	}
	if !strings.EqualFold(s.UUID, w.rec.UUID) {
		return absent, 0, nil
	}
	if number := w.attemptOn(s); number != 0 {
		return s, number, nil
	}
	return absent, 0, nil
}

// attemptOn is the attempt whose disks a server has, or 0.
func (w *worker) attemptOn(s hypervisor.Server) uint64 {
	for _, d := range s.Disks {
		if number := w.rec.attemptOf(d.Source); number != 0 {
			return number
		}
	}
	return 0
}

// removeServer takes our server's power and its definition. Its disks stay. A server that is not ours is not touched.
func (w *worker) removeServer(ctx context.Context) error {
	if w.rec.Server == "" {
		return nil
	}
	s, number, err := w.ownServer(ctx)
	if err != nil {
		return err
	}
	if s.Power != hypervisor.PowerAbsent {
		w.log.Info("the shadow server is removed", "server", s.Name, "attempt", number)
		if err := w.destroy(ctx, s.Name); err != nil {
			return err
		}
		err := w.call(ctx, "undefining server "+s.Name, func(ctx context.Context) error { return w.cfg.Target.Undefine(ctx, s.Name) })
		if err != nil {
			return err
		}
	}
	return w.save(func(r *record) { r.Server, r.UUID, r.Current = "", "", 0 })
}

func (w *worker) destroy(ctx context.Context, name string) error {
	return w.call(ctx, "stopping server "+name, func(ctx context.Context) error { return w.cfg.Target.Destroy(ctx, name) })
}

func (w *worker) start(ctx context.Context, name string) error {
	return w.call(ctx, "starting server "+name, func(ctx context.Context) error { return w.cfg.Target.Start(ctx, name) })
}

// serverPower is the power of our server, as reports say it.
func (w *worker) serverPower(ctx context.Context) umbrav1.PowerState {
	name := w.rec.Server
	if name == "" {
		return umbrav1.PowerState_POWER_STATE_ABSENT
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := w.cfg.Target.Server(bounded, name)
	switch {
	case errors.Is(err, hypervisor.ErrNotFound):
		return umbrav1.PowerState_POWER_STATE_ABSENT
	case err != nil:
		return umbrav1.PowerState_POWER_STATE_UNSPECIFIED
	case !strings.EqualFold(s.UUID, w.rec.UUID):
		return umbrav1.PowerState_POWER_STATE_ABSENT
	}
	return powerState(s.Power)
}

func powerState(p hypervisor.PowerState) umbrav1.PowerState {
	switch p {
	case hypervisor.PowerRunning:
		return umbrav1.PowerState_POWER_STATE_RUNNING
	case hypervisor.PowerPaused:
		return umbrav1.PowerState_POWER_STATE_PAUSED
	case hypervisor.PowerOff:
		return umbrav1.PowerState_POWER_STATE_OFF
	case hypervisor.PowerAbsent:
		return umbrav1.PowerState_POWER_STATE_ABSENT
	default:
		return umbrav1.PowerState_POWER_STATE_UNSPECIFIED
	}
}

// stopReplication has the replica refuse the assignment's epoch and all lower ones.
func (w *worker) stopReplication(ctx context.Context, a *umbrav1.Assignment) error {
	if w.cfg.Replica.Status(w.pair).StoppedEpoch >= a.GetEpoch() { // it is so already, and no news in a trace
		return w.apply(ctx, a, false)
	}
	ctx, span := w.span(ctx, umbrav1.StepKind_STEP_KIND_STOP_REPLICATION)
	err := w.apply(ctx, a, false)
	tracing.End(span, err)
	return err
}

func (w *worker) apply(ctx context.Context, a *umbrav1.Assignment, accept bool) error {
	bounded, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	s := a.GetShadow()
	err := w.cfg.Replica.Apply(bounded, replica.Spec{
		Pair:                 w.pair,
		UID:                  a.GetDrPairUid(),
		Generation:           a.GetGeneration(),
		Epoch:                a.GetEpoch(),
		Accept:               accept,
		MainHost:             s.GetMainHost(),
		Policy:               s.GetPolicy(),
		ResyncGeneration:     s.GetResyncGeneration(),
		DeletePointsOnResync: s.GetDeletePointsOnResync(),
		Operation:            a.GetOperation(),
		TraceID:              tracing.TraceID(a.GetTraceParent()),
	})
	if err == nil {
		return nil
	}
	if accept {
		return fmt.Errorf("accepting replication of epoch %d: %w", a.GetEpoch(), err)
	}
	return &stepError{
		step: umbrav1.StepKind_STEP_KIND_STOP_REPLICATION,
		err:  fmt.Errorf("refusing replication up to epoch %d: %w", a.GetEpoch(), err),
	}
}
