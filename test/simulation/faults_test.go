package simulation_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// fault is something that goes wrong, by name. It acts at once and is ended by heal and, for what was killed, by revive.
type fault struct {
	name string
	act  func(ctx context.Context, w *world, r *rand.Rand) error
}

var faults = []fault{
	{"hostd of the main host killed", func(_ context.Context, w *world, _ *rand.Rand) error { return w.main.kill() }},
	{"hostd of the shadow host killed", func(_ context.Context, w *world, _ *rand.Rand) error { return w.shadow.kill() }},
	{"hostd of the main host restarted", func(_ context.Context, w *world, _ *rand.Rand) error {
		return errors.Join(w.main.kill(), w.main.start())
	}},
	{"hostd of the shadow host restarted", func(_ context.Context, w *world, _ *rand.Rand) error {
		return errors.Join(w.shadow.kill(), w.shadow.start())
	}},
	{"a control plane killed", func(_ context.Context, w *world, r *rand.Rand) error {
		w.anyPlane(r).kill()
		return nil
	}},
	{"all control planes killed", func(_ context.Context, w *world, _ *rand.Rand) error {
		for _, p := range w.planes {
			p.kill()
		}
		return nil
	}},
	{"a control plane restarted", func(_ context.Context, w *world, r *rand.Rand) error {
		p := w.anyPlane(r)
		p.kill()
		return p.start()
	}},
	{"a control plane loses its lease", func(ctx context.Context, w *world, r *rand.Rand) error { return w.loseLease(ctx, r) }},
	{"link between the control planes cut", cut(planeMachines[0], planeMachines[1])},
	{"all control planes away for an hour", func(_ context.Context, w *world, _ *rand.Rand) error {
		for _, p := range w.planes {
			p.kill()
			p.clock.jump(time.Hour)
		}
		w.main.clock.jump(time.Hour)
		w.shadow.clock.jump(time.Hour)
		return nil
	}},
	{"main host without power", func(ctx context.Context, w *world, _ *rand.Rand) error { return w.powerLoss(ctx, w.main) }},
	{"shadow host without power", func(ctx context.Context, w *world, _ *rand.Rand) error { return w.powerLoss(ctx, w.shadow) }},
	{"link of the main host to the control plane cut", cut("a", planePlace)},
	{"link of the shadow host to the control plane cut", cut("b", planePlace)},
	{"link between the hosts cut", cut("a", "b")},
	{"main host cut off", both(cut("a", planePlace), cut("a", "b"))},
	{"connections between the hosts reset", func(_ context.Context, w *world, _ *rand.Rand) error {
		w.network.reset("a", "b")
		return nil
	}},
	{"link between the hosts stalls", both(stall("a", "b"), stall("b", "a"))},
	{"link from the main to the shadow host stalls one way", stall("a", "b")},
	{"link from the shadow to the main host stalls one way", stall("b", "a")},
	{"link from the main host to the control plane stalls one way", stall("a", planePlace)},
	{"link from the control plane to the main host stalls one way", stall(planePlace, "a")},
	{"link from the control plane to the shadow host stalls one way", stall(planePlace, "b")},
	{"link from the shadow host to the control plane stalls one way", stall("b", planePlace)},
	{"link between the hosts is slow", slow("a", "b")},
	{"link of the main host to the control plane is slow", slow("a", planePlace)},
	{"link of the shadow host to the control plane is slow", slow("b", planePlace)},
	{"hypervisor of the main host fails calls", moody(failing, true)},
	{"hypervisor of the shadow host fails calls", moody(failing, false)},
	{"hypervisor of the main host loses answers", moody(failingAfter, true)},
	{"hypervisor of the shadow host loses answers", moody(failingAfter, false)},
	{"hypervisor of the main host hangs", moody(hanging, true)},
	{"hypervisor of the shadow host hangs", moody(hanging, false)},
	{"hypervisor of the main host away", func(_ context.Context, w *world, _ *rand.Rand) error {
		w.main.machine.SetAvailable(false)
		return nil
	}},
	{"hypervisor of the shadow host away", func(_ context.Context, w *world, _ *rand.Rand) error {
		w.shadow.machine.SetAvailable(false)
		return nil
	}},
	{"shadow server crashes at the ends of its pulls", func(_ context.Context, w *world, r *rand.Rand) error {
		w.shadow.machine.crashAtCopies([]float64{1, 0.5, 0.2}[r.IntN(3)])
		return nil
	}},
	{"checkpoints deleted behind our back", func(ctx context.Context, w *world, r *rand.Rand) error { return w.deleteCheckpoints(ctx, r) }},
	{"main server crashed", func(ctx context.Context, w *world, _ *rand.Rand) error {
		return w.main.machine.Crash(ctx, w.subject.server)
	}},
	{"main server off and on by its user", func(ctx context.Context, w *world, _ *rand.Rand) error {
		return errors.Join(w.main.machine.Destroy(ctx, w.subject.server), w.main.machine.Start(ctx, w.subject.server))
	}},
	{"main server off by its user", func(ctx context.Context, w *world, _ *rand.Rand) error {
		return w.main.machine.Destroy(ctx, w.subject.server)
	}},
	{"main server started by its user", func(ctx context.Context, w *world, _ *rand.Rand) error {
		return w.main.machine.Start(ctx, w.subject.server)
	}},
	{"backup job of another tool", func(ctx context.Context, w *world, r *rand.Rand) error {
		_ = w.main.machine.BeginForeignBackup(ctx, w.subject.server, "other-"+string(rune('a'+r.IntN(26)))) // there may be one of ours
		return nil
	}},
	{"commit of the store fails", func(_ context.Context, w *world, r *rand.Rand) error { return w.failStore(r) }},
	{"clock of the main host set forwards", jump(func(w *world) fastClock { return w.main.clock }, 1)},
	{"clock of the main host set back", jump(func(w *world) fastClock { return w.main.clock }, -1)},
	{"clock of the shadow host set forwards", jump(func(w *world) fastClock { return w.shadow.clock }, 1)},
	{"clock of the shadow host set back", jump(func(w *world) fastClock { return w.shadow.clock }, -1)},
	{"clock of the control plane set forwards", jump(func(w *world) fastClock { return w.planes[0].clock }, 1)},
	{"clock of the control plane set back", jump(func(w *world) fastClock { return w.planes[0].clock }, -1)},
}

func cut(a, b string) func(context.Context, *world, *rand.Rand) error {
	return func(_ context.Context, w *world, _ *rand.Rand) error {
		w.network.cut(a, b)
		return nil
	}
}

func stall(from, to string) func(context.Context, *world, *rand.Rand) error {
	return func(_ context.Context, w *world, _ *rand.Rand) error {
		w.network.stall(from, to)
		return nil
	}
}

// slow delays each message, both ways, by up to 30 ms, which is over a second of the world's time.
func slow(a, b string) func(context.Context, *world, *rand.Rand) error {
	return func(_ context.Context, w *world, r *rand.Rand) error {
		each := time.Duration(1+r.Int64N(30)) * time.Millisecond
		w.network.slow(a, b, each)
		w.network.slow(b, a, each)
		return nil
	}
}

func both(one, two func(context.Context, *world, *rand.Rand) error) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, r *rand.Rand) error {
		return errors.Join(one(ctx, w, r), two(ctx, w, r))
	}
}

func moody(to mood, main bool) func(context.Context, *world, *rand.Rand) error {
	return func(_ context.Context, w *world, r *rand.Rand) error {
		h := w.shadow
		if main {
			h = w.main
		}
		h.machine.turn(to, []float64{1, 0.5, 0.2}[r.IntN(3)])
		return nil
	}
}

func jump(of func(*world) fastClock, sign int64) func(context.Context, *world, *rand.Rand) error {
	return func(_ context.Context, w *world, r *rand.Rand) error {
		by := []time.Duration{time.Second, time.Minute, time.Hour}[r.IntN(3)]
		of(w).jump(time.Duration(sign) * time.Duration(r.Int64N(int64(by))))
		return nil
	}
}

func (w *world) anyPlane(r *rand.Rand) *plane { return w.planes[r.IntN(len(w.planes))] }

// powerLoss ends everything on a host at once. Its servers are off afterwards, and their bitmaps are broken.
func (w *world) powerLoss(ctx context.Context, h *host) error {
	err := h.kill()
	h.boot++
	servers, listErr := h.machine.Servers(ctx)
	if listErr != nil {
		return err // the hypervisor is away: then it is only hostd that died
	}
	for _, server := range servers {
		err = errors.Join(err, h.machine.Crash(ctx, server.Name))
	}
	return err
}

func (w *world) deleteCheckpoints(ctx context.Context, r *rand.Rand) error {
	names, err := w.main.machine.CheckpointNames(ctx, w.subject.server)
	if err != nil {
		return nil // the hypervisor is away
	}
	for _, name := range names {
		if strings.HasPrefix(name, "umbra-") && r.IntN(2) == 0 {
			_ = w.main.machine.DeleteCheckpoint(ctx, w.subject.server, name) // of a server that is off it cannot be
		}
	}
	return nil
}

// failStore makes the shadow host's store stop at one step of its next commits, as a crash there would.
func (w *world) failStore(r *rand.Rand) error {
	points := []recoverystore.Failpoint{
		recoverystore.FailDataWritten, recoverystore.FailBeforeSync, recoverystore.FailBeforeIndex, recoverystore.FailInIndex,
		recoverystore.FailAfterIndex, recoverystore.FailDeleteMarked, recoverystore.FailDeleteBatch, recoverystore.FailViewWritten,
		recoverystore.FailViewUnrecorded,
	}
	at := points[r.IntN(len(points))]
	fail := func(p recoverystore.Failpoint) error {
		if slices.Contains([]recoverystore.Failpoint{at}, p) {
			return errInjected
		}
		return nil
	}
	w.shadow.storeFault.Store(&fail)
	return nil
}

// revive starts what was killed.
func (w *world) revive() error {
	var err error
	for _, p := range w.planes {
		err = errors.Join(err, p.start())
	}
	return errors.Join(err, w.main.start(), w.shadow.start())
}
