package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/pkg/lab/console"
)

// actMax bounds an act with its fault, settleMax the time after which a pair must be at rest: generous, nothing is timed.
const (
	actMax    = 5 * time.Minute
	settleMax = 5 * time.Minute
)

// errPromise says that a promise is broken, where a check does not say it by itself.
var errPromise = errors.New("broken promise")

// booting is a boot of the shadow server whose report is still to be read.
type booting struct {
	log   *console.Console
	point *umbrav1.RecoveryPoint
}

// cycle does one act with one fault, waits until all is well again, and checks every promise.
func (w *world) cycle(ctx context.Context, c Cycle) error {
	began := time.Now()
	w.now, w.booting, w.mended = c, nil, make(chan struct{})
	if err := w.begin(ctx, &c); err != nil {
		return err
	}
	w.note("cycle %d: %s", c.Number, c)
	broken := func(promise string, err error) error { return &Broken{Cycle: c, Promise: promise, Err: err} }
	err := w.actUnderFault(ctx, c)
	switch {
	case errors.Is(err, errMayFail):
	case errors.Is(err, errTwice):
		return broken("an acknowledged request is carried out exactly once", err)
	case err != nil:
		return broken("every request that is allowed leads to its end", err)
	}
	if err := w.settle(ctx); err != nil {
		return broken("every pair comes to rest in a state of the table", err)
	}
	for _, p := range promises {
		checking, cancel := context.WithTimeout(ctx, settleMax)
		err := p.check(checking, w)
		cancel()
		if err != nil {
			return broken(p.says, err)
		}
		w.tally.Checks[p.says]++
	}
	w.tally.Cycles++
	w.tally.Took += time.Since(began)
	return nil
}

// begin brings the scene to where the cycle's act can be done, and notes what holds before it.
func (w *world) begin(ctx context.Context, c *Cycle) error {
	ctx, cancel := context.WithTimeout(ctx, actMax)
	defer cancel()
	pair, err := w.rest(ctx)
	if err != nil {
		return fmt.Errorf("before cycle %d: %w", c.Number, err)
	}
	if pair == nil {
		if err := w.startAnew(ctx); err != nil {
			return err
		}
	}
	chosen, ok := choose(c.Act, pair, c.dice())
	if !ok {
		return fmt.Errorf("cycle %d: %q cannot be done in %v", c.Number, c.Act, pair.GetState())
	}
	c.Act = chosen.name
	w.now, w.act = *c, chosen
	w.history.before = promised{at: time.Now()}
	if pair != nil {
		w.history.before.points, err = w.points(ctx)
	}
	return err
}

// actUnderFault does the act, and the fault at its moment.
func (w *world) actUnderFault(ctx context.Context, c Cycle) error {
	ctx, cancel := context.WithTimeout(ctx, actMax)
	defer cancel()
	w.tally.Acts[w.act.name]++
	done := make(chan error, 1)
	go func() { done <- w.act.do(ctx, w, c.dice()) }()
	faulted := w.fault(ctx, c)
	close(w.mended)
	if faulted != nil {
		cancel()
	}
	for {
		select {
		case err := <-done:
			if faulted != nil {
				return fmt.Errorf("the fault could not be made: %w", faulted)
			}
			return err
		case <-time.After(retryEvery):
			w.usersStartServers(ctx)
		}
	}
}

// fault waits for its moment, strikes, and is mended.
func (w *world) fault(ctx context.Context, c Cycle) error {
	if c.Fault == "" {
		return nil
	}
	fault, ok := faultNamed(c.Fault)
	if !ok {
		return fmt.Errorf("there is no fault %q", c.Fault)
	}
	if err := pauseFor(ctx, c.Delay); err != nil {
		return err
	}
	mend, err := fault.Inject(ctx, w)
	if errors.Is(err, errNothingToHit) {
		w.tally.Missed[fault.Name]++
		w.note("  nothing to hit")
		return nil
	}
	if err != nil {
		if mend != nil {
			err = errors.Join(err, mend(context.WithoutCancel(ctx)))
		}
		return err
	}
	w.tally.Faults[fault.Name]++
	return errors.Join(pauseFor(ctx, c.Hold), mend(context.WithoutCancel(ctx)))
}

func pauseFor(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// usersStartServers starts what its user would start: a server that is off and should not be. A host that cannot do it
// just then is asked again.
func (w *world) usersStartServers(ctx context.Context) {
	start := func(h *lab.Host) {
		w.startFallen(ctx, h)
		if state, err := w.power(ctx, h); err != nil || state != "shut off" {
			return
		}
		if _, err := h.Virsh(ctx, "start", guest); err == nil {
			w.note("  its user has started the server of %s", h.Name)
		}
	}
	if w.act.mainRuns {
		start(w.Main)
	}
	if w.act.shadowRuns {
		start(w.Shadow)
	}
}

// startFallen starts a libvirtd that has ended by itself, as the unit of its distribution does. The act that is under way must
// not start or stop the host meanwhile.
func (w *world) startFallen(ctx context.Context, h *lab.Host) {
	if !h.Alive() || h.Libvirtd.Running() {
		return
	}
	if err := w.startLibvirtd(ctx, h); err == nil {
		w.tally.Fallen["libvirtd of "+h.Name]++
		w.note("  libvirtd of %s had ended by itself and is started again", h.Name)
	}
}
