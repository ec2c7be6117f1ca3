package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// commitServer's disk is full of noise.
const commitServer = "committed"

// convertWays are how a user copies an image; the faster one counts.
var convertWays = []conversion{
	{name: "qemu-img convert -t none", options: []string{"-W", "-m", "8", "-t", "none", "-T", "none"}},
	{name: "qemu-img convert", options: []string{"-W", "-m", "8"}},
}

// commitTime is row 14: a commit, to disks that stand alone on stable storage, beside a copy of the same image.
func commitTime(ctx context.Context, b *bench) error {
	return b.onSite(ctx, func(ctx context.Context, s *site) error {
		if err := makeImage(ctx, disk(s.Main, commitServer), content{size: b.syncSize(), noise: []part{{0, b.syncSize()}}}); err != nil {
			return err
		}
		if err := s.startIdle(ctx, commitServer); err != nil {
			return err
		}
		f, err := s.freeze(ctx, commitServer, func(*frozenPair, *recoverystore.Store) error {
			return os.Remove(disk(s.Main, commitServer))
		})
		if err != nil {
			return err
		}
		sides := []side{{ourSide, f.failedOver, f.commit}}
		for _, c := range convertWays {
			c.frozenPair = f
			sides = append(sides, side{c.name, c.ready, c.run})
		}
		got, err := b.alternate(ctx, sides...)
		if err != nil {
			return err
		}
		best := got.bestPeer()
		b.faster(fmt.Sprintf("commit of %d GiB", b.syncSize()/gib), got[ourSide], got[best], best, 1.0, 1.2)
		b.remark("Umbra's figure is from the request to the end of the operation; the server runs throughout, and is paused for the moment in which it is switched to the copy.")
		return nil
	})
}

// failedOver makes a pair that can be committed.
func (f *frozenPair) failedOver(ctx context.Context) error {
	if err := f.reset(ctx); err != nil {
		return err
	}
	op, err := f.askFailover(ctx, "")
	if err != nil {
		return err
	}
	return f.succeed(ctx, op)
}

func (f *frozenPair) commit(ctx context.Context) (float64, error) {
	return timed(func() error {
		answer, err := f.Failover.CommitFailover(ctx, &umbrav1.CommitFailoverRequest{Name: pairName(f.server)})
		if err != nil {
			return err
		}
		return f.succeed(ctx, answer.GetOperation())
	})
}

// conversion copies the same view with qemu-img.
type conversion struct {
	*frozenPair
	name    string
	options []string
	image   string
}

// ready removes what a commit has left, and opens the view.
func (c *conversion) ready(ctx context.Context) error {
	if err := c.stop(ctx); err != nil {
		return err
	}
	return c.atStore(ctx, func(store *recoverystore.Store) error {
		points := store.Points()
		view, err := store.OpenView(ctx, points[len(points)-1].ID, recoverystore.ViewOptions{})
		if err != nil {
			return err
		}
		c.image = view.Disks[0].QEMUImage()
		return nil
	})
}

func (c *conversion) run(ctx context.Context) (float64, error) {
	to := disk(c.Shadow, "converted")
	took, err := timed(func() error {
		args := append(append([]string{"convert"}, c.options...), "-O", "qcow2", c.image, to)
		if _, err := command(ctx, "qemu-img", args...); err != nil {
			return err
		}
		_, err := command(ctx, "sync", to)
		return err
	})
	return took, errors.Join(err, os.Remove(to))
}
