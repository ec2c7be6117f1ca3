package main

import (
	"context"
	"fmt"
	"os"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

const (
	cycleServer = "cycle"
	cyclePeer   = "backedup"
	cycleBytes  = 10 * gib
	cyclePlaces = 16 // of 64 KiB, all over the disk: 1 MiB
	// shortInterval leaves time to ask for a long one again before another cycle is due.
	shortInterval = 10 * time.Second
)

// cycleTime is row 4: a cycle of a server that has changed 1 MiB, beside an incremental backup of the same change. virtnbdbackup
// refuses a server with another tool's checkpoints, so there are two servers, alike to the byte.
func cycleTime(ctx context.Context, b *bench) error {
	return b.onSite(ctx, func(ctx context.Context, s *site) error {
		for _, server := range []string{cycleServer, cyclePeer} {
			if err := makeImage(ctx, disk(s.Main, server), content{size: cycleBytes, noise: []part{{0, 64 * mib}}}); err != nil {
				return err
			}
			if err := s.startIdle(ctx, server); err != nil {
				return err
			}
		}
		if err := s.protect(ctx, cycleServer, idleInterval); err != nil {
			return err
		}
		if err := s.waitPoints(ctx, cycleServer, 1); err != nil {
			return err
		}
		if err := s.virtnbdbackup(ctx, cyclePeer, "full"); err != nil {
			return err
		}
		const peer = "virtnbdbackup -l inc"
		got, err := b.alternate(ctx,
			side{ourSide, s.changed(cycleServer), s.cycleNow},
			side{peer, s.changed(cyclePeer), func(ctx context.Context) (float64, error) {
				// hostd runs already. So that this compares two cycles and no reading of Python's modules from a disk, they are loaded once.
				if _, err := finish(s.Main.Command(ctx, "virtnbdbackup", "--version")); err != nil {
					return 0, err
				}
				return timed(func() error { return s.virtnbdbackup(ctx, cyclePeer, "inc") })
			}})
		if err != nil {
			return err
		}
		b.faster("a cycle with 1 MiB changed of 10 GiB", got[ourSide], got[peer], peer, 10, 20)
		b.remark("The change lies in 16 places all over the disk. Umbra's figure is hostd's own metric: from the turn of the cycle to the point that is durable on the other host, and the older " +
			"checkpoint's deletion. virtnbdbackup's is from its start to its end, with its program in the page cache before.")
		return nil
	})
}

// changed writes 1 MiB through a server's QEMU, other bytes each time.
func (s *site) changed(server string) func(ctx context.Context) error {
	var rounds int
	return func(ctx context.Context) error {
		rounds++
		return s.changeDisk(ctx, server, rounds)
	}
}

func (s *site) changeDisk(ctx context.Context, server string, round int) error {
	var writes []string
	for i := range int64(cyclePlaces) {
		writes = append(writes, diskWrite(server, int64(1+round%255), i*(cycleBytes/cyclePlaces), recoverystore.ClusterSize))
	}
	return s.writeDisks(ctx, writes)
}

// cycleNow makes a cycle due and returns how long it took.
func (s *site) cycleNow(ctx context.Context) (float64, error) {
	before, spent, err := cycles(ctx, s.Main)
	if err != nil {
		return 0, err
	}
	after, took := before, 0.0
	err = s.makeDue(ctx, cycleServer, func() error {
		for after == before {
			err := pause(ctx, 250*time.Millisecond) // each look is a process of its own, beside the cycle
			if err == nil {
				after, took, err = cycles(ctx, s.Main)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	points, err := s.Points(ctx, cycleServer)
	if err != nil {
		return 0, err
	}
	if stored := points[0].GetChangedBytes(); after != before+1 || stored != cyclePlaces*recoverystore.ClusterSize {
		return 0, fmt.Errorf("%g cycles, the newest of which stored %d bytes", after-before, stored)
	}
	return took - spent, nil
}

// makeDue makes a cycle due by asking for a short interval, until done returns.
func (s *site) makeDue(ctx context.Context, pair string, done func() error) error {
	if err := s.setInterval(ctx, pair, shortInterval); err != nil {
		return err
	}
	if err := done(); err != nil {
		return err
	}
	return s.setInterval(ctx, pair, idleInterval)
}

func (s *site) setInterval(ctx context.Context, pair string, interval time.Duration) error {
	_, err := s.Protection.UpdateDRPair(ctx, &umbrav1.UpdateDRPairRequest{DrPair: &umbrav1.DRPair{Name: pairName(pair), Policy: policy(interval)}})
	return err
}

// virtnbdbackup makes a backup into a folder of this row, all of it on stable storage.
func (s *site) virtnbdbackup(ctx context.Context, server, level string) error {
	dir := s.bench.path("work", "virtnbdbackup")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if _, err := finish(s.Main.Command(ctx, "virtnbdbackup", "-n", "-d", server, "-l", level, "-o", dir)); err != nil {
		return err
	}
	_, err := finish(s.Main.Command(ctx, "find", dir, "-exec", "sync", "{}", "+"))
	return err
}
