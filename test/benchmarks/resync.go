package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

const (
	resyncServer = "resync"
	resyncBytes  = 10 * gib
	resyncQuick  = gib
	// resyncShare is how much of the disk changes: one cluster of a hundred, each apart from the others.
	resyncShare = 100
)

// resyncSize is how large the disk of a resync is.
func (b *bench) resyncSize() int64 {
	if b.quick {
		return resyncQuick
	}
	return resyncBytes
}

// resync measures the time and what the main host's network interface carries, in both directions.
type resync struct {
	*site
	wire samples // MiB
}

// resyncTime is row 5: QEMU has crashed, and what it knew of changes is lost.
func resyncTime(ctx context.Context, b *bench) error {
	return b.onSite(ctx, func(ctx context.Context, s *site) error {
		size := b.resyncSize()
		if err := makeImage(ctx, disk(s.Main, resyncServer), content{size: size, noise: []part{{0, size}}}); err != nil {
			return err
		}
		if err := s.startIdle(ctx, resyncServer); err != nil {
			return err
		}
		best, err := s.bestCopyTool(ctx, resyncServer, size)
		if err != nil {
			return err
		}
		if err := s.protect(ctx, resyncServer, idleInterval); err != nil {
			return err
		}
		if err := s.waitPoints(ctx, resyncServer, 1); err != nil {
			return err
		}
		r := &resync{site: s, wire: samples{}}
		var round int64
		got, err := b.alternate(ctx,
			side{ourSide, func(ctx context.Context) error { round++; return s.loseChanges(ctx, round) }, r.counted(ourSide, s.resyncNow)},
			side{best.name, nil, r.counted(best.name, func(ctx context.Context) (float64, error) {
				return s.peerSync(ctx, resyncServer, size, best)
			})},
			side{diskRead, nil, s.readImage})
		if err != nil {
			return err
		}
		what := fmt.Sprintf("compare-resync of %d GiB after a lost bitmap, 1 %% changed", size/gib)
		b.faster(what, got[ourSide], got[best.name], best.name, 2, quantile(got[best.name], 0.5)/quantile(got[diskRead], 0.5))
		b.remark(fmt.Sprintf("From the request for a point, with the server started again, to the durable point. Reading the disk's file and nothing else takes %s s.",
			number(quantile(got[diskRead], 0.5))))
		b.share(what+": bytes on the wire", "MiB", r.wire[ourSide], r.wire[best.name], best.name, target{0.03, 1.0 / resyncShare, atMost})
		b.remark("All that the main host's network interface has received and sent meanwhile, headers, checksums and sessions included.")
		return nil
	})
}

// bestCopyTool tries each tool once on the very disk, since a copy takes long.
func (s *site) bestCopyTool(ctx context.Context, server string, size int64) (copyTool, error) {
	trial := samples{}
	for _, p := range copyTools {
		if err := settle(ctx); err != nil {
			return copyTool{}, err
		}
		took, err := s.peerSync(ctx, server, size, p)
		if err != nil {
			return copyTool{}, err
		}
		s.bench.note("trial: %-42s %.4g", p.name, took)
		trial[p.name] = append(trial[p.name], took)
	}
	best := trial.bestPeer()
	for _, p := range copyTools {
		if p.name == best {
			return p, nil
		}
	}
	return copyTool{}, fmt.Errorf("no tool is named %q", best)
}

// loseChanges changes one cluster of a hundred, other bytes each time, and then kills QEMU and starts the server again: what is
// in the image file of the changes is not to be trusted then.
func (s *site) loseChanges(ctx context.Context, round int64) error {
	var writes []string
	for off := round % resyncShare * recoverystore.ClusterSize; off < s.bench.resyncSize(); off += resyncShare * recoverystore.ClusterSize {
		writes = append(writes, diskWrite(resyncServer, 1+round%255, off, recoverystore.ClusterSize))
	}
	if err := s.writeDisks(ctx, writes); err != nil {
		return err
	}
	if err := s.Main.KillGuest(ctx, resyncServer); err != nil {
		return err
	}
	_, err := s.Main.Virsh(ctx, "start", resyncServer)
	return err
}

// diskRead is what no resync that reads the whole disk can be faster than.
const diskRead = "reading the disk"

func (s *site) readImage(ctx context.Context) (float64, error) {
	return timed(func() error {
		_, err := command(ctx, "dd", "if="+disk(s.Main, resyncServer), "of=/dev/null", "bs=1M", "iflag=direct", "status=none")
		return err
	})
}

// resyncNow makes a cycle due and returns how long it took until the point was durable.
func (s *site) resyncNow(ctx context.Context) (float64, error) {
	before, err := s.Points(ctx, resyncServer)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := s.makeDue(ctx, resyncServer, func() error { return s.waitPoints(ctx, resyncServer, int64(len(before))+1) }); err != nil {
		return 0, err
	}
	points, err := s.Points(ctx, resyncServer)
	if err != nil {
		return 0, err
	}
	resynced := points[len(points)-1-len(before)] // another may have been due since
	want := s.bench.resyncSize() / resyncShare
	if stored := resynced.GetChangedBytes(); stored < want-recoverystore.ClusterSize || stored > want+recoverystore.ClusterSize {
		return 0, fmt.Errorf("the resync has stored %d bytes where about %d had changed", stored, want)
	}
	return resynced.GetCompleteTime().AsTime().Sub(began).Seconds(), nil
}

// counted also counts what goes over the wire.
func (r *resync) counted(name string, once func(context.Context) (float64, error)) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		before, err := r.wireBytes(ctx)
		if err != nil {
			return 0, err
		}
		took, err := once(ctx)
		if err != nil {
			return 0, err
		}
		after, err := r.wireBytes(ctx)
		if err != nil {
			return 0, err
		}
		r.wire[name] = append(r.wire[name], (after-before)/float64(mib))
		return took, nil
	}
}

// wireBytes is what the main host's network interface has received and sent.
func (s *site) wireBytes(ctx context.Context) (total float64, err error) {
	text, err := finish(s.Main.Command(ctx, "cat", "/sys/class/net/eth0/statistics/rx_bytes", "/sys/class/net/eth0/statistics/tx_bytes"))
	if err != nil {
		return 0, err
	}
	for _, word := range strings.Fields(text) {
		n, err := strconv.ParseFloat(word, 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}
