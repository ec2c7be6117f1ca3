package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	labguest "github.com/umbra-dr/umbra/pkg/lab/guest"
	"github.com/umbra-dr/umbra/pkg/lab/ledger"
	"github.com/umbra-dr/umbra/pkg/qcow2"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

const (
	// auditEvery is how often the whole store is looked at, on average: it costs a cut of the shadow host's hostd.
	auditEvery = 6
	// auditPoints is how many points are read through in one audit, beside those that there is a copy of.
	auditPoints = 4
)

// checkCopies takes the store as a crash of hostd leaves it, opens it elsewhere, and reads points through as stock QEMU
// does: those that there is an independent copy of must be identical, the others must hold a ledger that is whole.
func checkCopies(ctx context.Context, w *world) error {
	pair, err := w.pair(ctx)
	if err != nil || pair == nil {
		return err
	}
	dice := w.now.dice()
	if dice.IntN(auditEvery) != 0 && w.act.name != "copy" {
		return nil
	}
	dir := filepath.Join(w.cfg.Dir, "audit")
	if err := w.snatchStore(ctx, dir); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // the folder of the run goes at the end anyway
	store, err := recoverystore.Open(ctx, dir, recoverystore.Options{})
	if err != nil {
		return fmt.Errorf("a store as it is after kill -9 of hostd: %w", err)
	}
	points := store.Points()
	for _, i := range dice.Perm(len(points))[:min(auditPoints, len(points))] {
		if err := w.readThrough(ctx, store, points[i]); err != nil {
			return errors.Join(err, store.Close())
		}
	}
	for _, p := range points {
		if copies := w.history.copies[pairName+"/recoveryPoints/"+string(p.ID)]; copies != nil {
			if err := identical(ctx, store, p, copies); err != nil {
				return errors.Join(err, store.Close())
			}
			w.tally.Checks["  points compared with an independent copy"]++
		}
	}
	return store.Close()
}

// snatchStore kills hostd and copies the pair's store before it starts again.
func (w *world) snatchStore(ctx context.Context, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return fmt.Errorf("removing an earlier copy: %w", err)
	}
	if err := w.Shadow.Hostd.Kill(ctx); err != nil {
		return err
	}
	from := filepath.Join(w.storeDir(w.Shadow), "pairs", pairID)
	out, err := exec.CommandContext(ctx, "cp", "-a", "--sparse=auto", from, to).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("copying the store: %w: %s", err, out)
	}
	return errors.Join(err, w.Shadow.Hostd.Start(ctx))
}

// readThrough reads a point's disks through the view that QEMU would boot, and checks the ledger on them.
func (w *world) readThrough(ctx context.Context, store *recoverystore.Store, p recoverystore.Point) (err error) {
	view, err := store.OpenView(ctx, p.ID, recoverystore.ViewOptions{})
	if err != nil {
		return fmt.Errorf("opening the view of %s: %w", p.ID, err)
	}
	defer func() { err = errors.Join(err, store.CloseView(context.WithoutCancel(ctx), p.ID)) }()
	var disks []io.ReaderAt
	for _, d := range view.Disks[:len(guestSpec().DiskBytes)] { // without one that was added
		file, err := os.Open(d.Path)
		if err != nil {
			return fmt.Errorf("reading %s: %w", p.ID, err)
		}
		defer func() { _ = file.Close() }() // read only
		reader, err := qcow2.NewReader(io.NewSectionReader(file, d.OffsetBytes, d.SizeBytes))
		if err != nil {
			return fmt.Errorf("the view of %s, disk %s: %w", p.ID, d.Name, err)
		}
		disks = append(disks, reader)
	}
	report, err := ledger.Verify(labguest.Areas(disks...), nil)
	if err != nil {
		return fmt.Errorf("the ledger of %s: %w", p.ID, err)
	}
	w.tally.Checks["  points read through"]++
	return w.holds(moment{string(p.ID), p.CreateTime, p.CompleteTime}, report)
}

// identical compares each disk of the point, as stock QEMU reads it through the view, with its copy.
func identical(ctx context.Context, store *recoverystore.Store, p recoverystore.Point, copies []string) error {
	view, err := store.OpenView(ctx, p.ID, recoverystore.ViewOptions{})
	if err != nil {
		return fmt.Errorf("opening the view of %s: %w", p.ID, err)
	}
	for i, d := range view.Disks[:len(copies)] {
		if out, err := exec.CommandContext(ctx, "qemu-img", "compare", d.QEMUImage(), copies[i]).CombinedOutput(); err != nil {
			return fmt.Errorf("%s, disk %s: %w: %s", p.ID, d.Name, err, out)
		}
	}
	return store.CloseView(ctx, p.ID)
}
