package recoverystore

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"testing"

	"github.com/umbra-dr/umbra/pkg/faultydisk"
)

// shadow is a store on a faulty disk beside a model of what was acknowledged.
type shadow struct {
	t    testing.TB
	dir  string
	disk *faultydisk.Disk
	s    *Store
	d    *Draft

	points map[PointID]modelState // acknowledged
	latest modelState             // with what is pending
	saved  modelState             // as of the last commit that was acknowledged
	disks  []DiskSpec
	// altered: something else than the store has changed its files, which it may complain of.
	altered bool

	// What the operation under way may have done when it does not return.
	maybeNew   map[PointID]modelState
	maybeGone  map[PointID]bool
	maybeSaved []modelState
}

var shadowDisks = []DiskSpec{{"vda", 20*ClusterSize - 512}, {"vdb", 1030 * ClusterSize}}

func newShadow(t testing.TB, dir string, fault faultydisk.Fault, at int) *shadow {
	w := &shadow{
		t: t, dir: dir, disk: faultydisk.New(t, fault, at),
		points: map[PointID]modelState{}, saved: modelState{"vda": {}, "vdb": {}},
	}
	w.latest = w.saved.clone()
	w.settle()
	return w
}

// settle says that nothing is in doubt.
func (w *shadow) settle() {
	w.maybeNew, w.maybeGone, w.maybeSaved = map[PointID]modelState{}, map[PointID]bool{}, nil
}

func (w *shadow) open() error {
	if w.s != nil {
		return nil
	}
	s, err := Open(context.Background(), w.dir, Options{
		noIndexSync: true, ReserveBytes: -1, Logger: slog.New(complaints{w}), wrapFile: onFaultyDisk(w.disk), wrapIndex: w.disk.WrapDatabase,
	})
	if err != nil {
		return err
	}
	w.s = s
	return nil
}

// complaints fails the test when the store says that it is damaged, and nobody damaged it.
type complaints struct{ w *shadow }

func (c complaints) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelError
}

func (c complaints) Handle(_ context.Context, r slog.Record) error {
	if !c.w.altered {
		c.w.t.Errorf("the store complains: %s", r.Message)
	}
	return nil
}

func (c complaints) WithAttrs([]slog.Attr) slog.Handler { return c }
func (c complaints) WithGroup(string) slog.Handler      { return c }

func (w *shadow) close() error {
	if w.s == nil {
		return nil
	}
	err := w.s.Close()
	w.s, w.d = nil, nil
	w.latest = w.saved.clone()
	return err
}

func (w *shadow) reopen() error {
	if err := w.close(); err != nil {
		return err
	}
	return w.open()
}

func (w *shadow) ensure(specs ...DiskSpec) error {
	if err := w.s.EnsureDisks(context.Background(), specs); err != nil {
		return err
	}
	for _, d := range specs {
		inPoint := func(m modelState) bool { return m[d.Name] != nil }
		if !slices.Contains(w.disks, d) && !slices.ContainsFunc(slices.Collect(maps.Values(w.points)), inPoint) {
			w.saved[d.Name], w.latest[d.Name] = modelDisk{}, modelDisk{} // removed with the last point that had it
		}
	}
	w.disks = specs
	return nil
}

func (w *shadow) begin() (err error) {
	if w.d == nil {
		w.d, err = w.s.Begin()
	}
	return err
}

// write writes one cluster for each tag.
func (w *shadow) write(disk string, first uint64, tags ...uint32) error {
	if err := w.begin(); err != nil {
		return err
	}
	size := w.disks[slices.IndexFunc(w.disks, func(d DiskSpec) bool { return d.Name == disk })].SizeBytes
	next := w.latest.clone()
	var data []byte
	for i, tag := range tags {
		cluster := first + uint64(i)
		data = append(data, clusterOf(tag, int(min(ClusterSize, size-int64(cluster)*ClusterSize)))...)
		next[disk][cluster] = tag
	}
	if err := w.d.WriteClusters(disk, first, data, nil); err != nil {
		return err
	}
	w.latest = next
	return nil
}

func (w *shadow) zero(disk string, first, count uint64) error {
	if err := w.begin(); err != nil {
		return err
	}
	if err := w.d.WriteZeros(disk, first, count); err != nil {
		return err
	}
	for c := first; c < first+count; c++ {
		delete(w.latest[disk], c)
	}
	return nil
}

func (w *shadow) progress() error {
	if err := w.begin(); err != nil {
		return err
	}
	w.maybeSaved = []modelState{w.latest.clone()}
	if err := w.d.SaveProgress(context.Background(), Coverage{Checkpoint: "c"}); err != nil {
		return err
	}
	w.saved = w.latest.clone()
	w.settle()
	return nil
}

// complete makes the draft the point of this number, unless it is there.
func (w *shadow) complete(n uint64) error {
	if w.points[pointID(n)] != nil {
		return nil
	}
	if err := w.begin(); err != nil {
		return err
	}
	id, now := pointID(n), w.pointState()
	w.maybeNew[id], w.maybeSaved = now, []modelState{w.latest.clone()}
	if _, err := w.d.Complete(context.Background(), PointMeta{ServerXML: "<domain/>", Attachments: map[string][]byte{"vars": {1, 2, 3}}}); err != nil {
		return err
	}
	w.d, w.points[id], w.saved = nil, now, w.latest.clone()
	w.settle()
	return nil
}

// pointState is what a point of now has: the active disks.
func (w *shadow) pointState() modelState {
	out := modelState{}
	for _, d := range w.disks {
		out[d.Name] = maps.Clone(w.latest[d.Name])
	}
	return out
}

func (w *shadow) ids() []PointID { return slices.Sorted(maps.Keys(w.points)) }

func (w *shadow) remove(ids ...PointID) error {
	ids = slices.DeleteFunc(ids, func(id PointID) bool { return w.points[id] == nil })
	for _, id := range ids {
		w.maybeGone[id] = true
	}
	if err := w.s.Delete(context.Background(), ids...); err != nil {
		return err
	}
	for _, id := range ids {
		delete(w.points, id)
	}
	w.settle()
	return nil
}

func (w *shadow) view(id PointID) error {
	v, err := w.s.OpenView(context.Background(), id, ViewOptions{})
	if err != nil {
		return err
	}
	for _, d := range v.Disks {
		if err := compareView(d, w.points[id][d.Name]); err != nil {
			w.t.Errorf("point %s disk %s: %v", id, d.Name, err)
		}
	}
	return nil
}

func (w *shadow) discard() error {
	if w.d != nil {
		if err := w.d.Abandon(); err != nil {
			return err
		}
		w.d = nil
	}
	base := modelState{"vda": {}, "vdb": {}}
	if ids := w.ids(); len(ids) > 0 {
		for name, disk := range w.points[ids[len(ids)-1]] {
			base[name] = maps.Clone(disk)
		}
	}
	w.maybeSaved = []modelState{base}
	if err := w.s.DiscardDraft(context.Background()); err != nil {
		return err
	}
	w.saved, w.latest = base, base.clone()
	w.settle()
	return nil
}

func (w *shadow) scrub() error {
	for {
		r, err := w.s.Scrub(context.Background(), 1<<20)
		if err != nil {
			return err
		}
		if len(r.Bad) > 0 {
			w.t.Errorf("scrub finds damage: %+v", r.Bad)
		}
		if r.Done {
			return nil
		}
	}
}

// life is all that a store goes through: every kind of change, more than once. Each step may be repeated.
func (w *shadow) life() []func() error {
	return []func() error{
		w.open,
		func() error { return w.ensure(shadowDisks...) },
		func() error { return w.write("vda", 2, 1, 2, 3, 4) },
		func() error { return w.write("vdb", 1022, 5, 6, 7) },
		w.progress,
		func() error { return w.write("vda", 3, 8) },
		func() error { return w.write("vda", 19, 9) },
		func() error { return w.complete(1) },
		func() error { return w.write("vda", 2, 10) },
		func() error { return w.zero("vdb", 1023, 4) },
		func() error { return w.complete(2) },
		func() error { return w.view(pointID(1)) },
		w.reopen,
		func() error { return w.write("vda", 2, 11, 12) },
		func() error { return w.write("vdb", 1023, 13) },
		func() error { return w.complete(3) },
		func() error { return w.s.CloseView(context.Background(), pointID(1)) },
		func() error { return w.remove(pointID(2)) },
		func() error { return w.write("vdb", 0, 14, 15, 16) },
		w.progress,
		func() error { return w.write("vda", 4, 17) },
		w.discard,
		func() error { return w.write("vda", 5, 18, 19) },
		func() error { return w.complete(4) },
		w.scrub,
		func() error { return w.view(pointID(4)) },
		func() error { return w.ensure(shadowDisks[0]) },
		func() error { return w.write("vda", 0, 20) },
		func() error { return w.complete(5) },
		func() error { return w.remove(pointID(1), pointID(3)) },
		func() error { return w.s.CloseView(context.Background(), pointID(4)) },
		func() error { return w.remove(pointID(4)) },
		func() error { return w.write("vda", 0, 21, 22, 23) },
		func() error { return w.complete(6) },
		func() error { return w.remove(pointID(5)) },
		w.reopen,
		w.close,
	}
}

// live ends at the first error.
func (w *shadow) live() error {
	for _, step := range w.life() {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// liveOn does after an error what hostd does: it tries again, and opens the store anew when that has stopped.
func (w *shadow) liveOn() {
	w.t.Helper()
	for i, step := range w.life() {
		err := step()
		if err == nil {
			continue
		}
		if !errors.Is(err, w.disk.Fault().Err) {
			w.t.Fatalf("step %d ended with %v, which does not say %v", i, err, w.disk.Fault().Err)
		}
		w.afterError(err)
		if err := step(); err != nil {
			w.t.Fatalf("step %d after %v, tried again: %v", i, err, err)
		}
	}
}

// afterError wants what was acknowledged to be there, and nothing done that was called failed. Only of a store that
// stopped nobody can say what the last operation did; and a deletion goes on.
func (w *shadow) afterError(err error) {
	w.t.Helper()
	switch {
	case w.s == nil || errors.Is(w.s.closed, ErrClosed):
		if openErr := w.reopen(); openErr != nil {
			w.t.Fatalf("open after %v: %v", err, openErr)
		}
	case errors.Is(err, ErrNoSpace) && (w.d == nil || !w.d.ended):
		w.maybeNew, w.maybeSaved = nil, nil
	default:
		w.maybeNew, w.maybeSaved = nil, nil
		if w.d != nil {
			if err := w.d.Abandon(); err != nil {
				w.t.Fatal(err)
			}
			w.d, w.latest = nil, w.saved.clone()
		}
	}
	w.checkAll()
	w.settle()
}
