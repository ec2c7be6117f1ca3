package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/pkg/lab/ledger"
)

const (
	writesServer = "writes"
	noPair       = "no replication"
	duringSync   = "during the initial sync"
	cycles1s     = "with cycles of 1 s"
	cycles5s     = "with cycles of 5 s"
)

// guestWrites are the guest's writes of one phase, and how long it was.
type guestWrites struct{ median, p99, rate, seconds float64 } // milliseconds, milliseconds, writes a second

// noiseSize is how large the disk is that makes the initial sync last for a while.
func (b *bench) noiseSize() int64 { return b.syncSize() / 4 }

// writeLatency is row 7: a guest that writes 4 KiB after 4 KiB, without replication and with it.
func writeLatency(ctx context.Context, b *bench) error {
	return b.onSite(ctx, func(ctx context.Context, s *site) error { return s.writeRounds(ctx) })
}

// writeRounds measures all phases so often as the bench does, and adds their rows.
func (s *site) writeRounds(ctx context.Context) error {
	if err := s.startWriting(ctx); err != nil {
		return err
	}
	b, got := s.bench, map[string][]guestWrites{}
	for i := range b.times {
		if err := s.writeRound(ctx, func(phase string, w guestWrites) {
			b.note("%d/%d %-26s median %.3g ms, p99 %.3g ms, %.0f writes/s", i+1, b.times, phase, w.median, w.p99, w.rate)
			got[phase] = append(got[phase], w)
		}); err != nil {
			return err
		}
	}
	for _, one := range []struct {
		phase string
		p99   target
	}{{cycles1s, target{3, 2, atMost}}, {cycles5s, target{1.5, 1.2, atMost}}, {duringSync, target{1.5, 1.2, atMost}}} {
		share := func(name, unit string, of func(guestWrites) float64, t target) {
			b.share(name+one.phase, unit, pick(got[one.phase], of), pick(got[noPair], of), noPair, t)
		}
		share("median of the guest's write latency ", "ms", func(w guestWrites) float64 { return w.median }, target{1.15, 1, atMost})
		share("p99 of the guest's write latency ", "ms", func(w guestWrites) float64 { return w.p99 }, one.p99)
		share("the guest's writes ", "1/s", func(w guestWrites) float64 { return w.rate }, target{0.85, 1, atLeast})
	}
	syncs := figureOf(pick(got[duringSync], func(w guestWrites) float64 { return w.seconds }))
	b.remark(fmt.Sprintf("Beside the guest's writes the initial sync of %d MiB took %s s: a copy of whole disks gives way to the server (copy-cost-max, a tenth).", b.noiseSize()>>20, number(syncs.Median)))
	return nil
}

func pick(got []guestWrites, of func(guestWrites) float64) (figures []float64) {
	for _, w := range got {
		figures = append(figures, of(w))
	}
	return figures
}

// startWriting starts the guest. It has a second disk, full of noise, so that an initial sync lasts for a while.
func (s *site) startWriting(ctx context.Context) error {
	if err := s.Main.DefineGuest(ctx, lab.GuestSpec{Name: writesServer, MeasureWrites: true}); err != nil {
		return err
	}
	size := s.bench.noiseSize()
	noise := content{size: size, noise: []part{{0, size}}}
	if err := makeImage(ctx, disk(s.Main, writesServer+"-noise"), noise); err != nil {
		return err
	}
	definition, err := s.Main.Virsh(ctx, "dumpxml", "--inactive", writesServer)
	if err != nil {
		return err
	}
	second := fmt.Sprintf(`<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none' io='threads'/>
<source file='/var/lib/libvirt/images/%s-noise-vda.qcow2'/><target dev='vdb' bus='virtio'/></disk></devices>`, writesServer)
	file := filepath.Join(s.Main.Dir, writesServer+".xml")
	if err := os.WriteFile(file, []byte(strings.Replace(definition, "</devices>", second, 1)), 0o600); err != nil {
		return err
	}
	if _, err := s.Main.Virsh(ctx, "define", file); err != nil {
		return err
	}
	if _, err := s.Main.StartGuest(ctx, writesServer, bootMax); err != nil {
		return err
	}
	return s.waitListed(ctx, writesServer)
}

// writeRound goes once through all phases.
func (s *site) writeRound(ctx context.Context, note func(phase string, w guestWrites)) error {
	length := 10 * time.Second
	if s.bench.quick {
		length /= 2
	}
	for _, phase := range []struct {
		name   string
		before func() error
		during func(context.Context) error
	}{
		{noPair, func() error { return settle(ctx) }, func(ctx context.Context) error { return pause(ctx, length) }},
		{
			duringSync, func() error { return nil },
			func(ctx context.Context) error {
				return errors.Join(s.protect(ctx, writesServer, idleInterval), s.waitPoints(ctx, writesServer, 1))
			},
		},
		{
			cycles1s, func() error { return s.setInterval(ctx, writesServer, time.Second) },
			func(ctx context.Context) error { return pause(ctx, length) },
		},
		{
			cycles5s, func() error { return s.setInterval(ctx, writesServer, 5*time.Second) },
			func(ctx context.Context) error { return pause(ctx, 2*length) }, // of four cycles
		},
	} {
		if err := phase.before(); err != nil {
			return err
		}
		w, err := s.writesDuring(ctx, phase.during)
		if err != nil {
			return fmt.Errorf("%s: %w", phase.name, err)
		}
		note(phase.name, w)
	}
	return s.unprotect(ctx, writesServer)
}

var tookLine = regexp.MustCompile(regexp.QuoteMeta(ledger.Prefix) + `took[^\r\n]*\r?\n`)

// writesDuring gathers what the guest says while work goes on. What it says first is of before.
func (s *site) writesDuring(ctx context.Context, work func(context.Context) error) (guestWrites, error) {
	log := s.Main.Console(writesServer)
	if err := log.SkipToEnd(); err != nil {
		return guestWrites{}, err
	}
	working, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- work(ctx)
		stop()
	}()
	took := ledger.Latencies{}
	var first, last time.Time
	for {
		line, err := log.Wait(working, tookLine)
		if working.Err() != nil {
			break
		}
		if err != nil {
			stop()
			return guestWrites{}, errors.Join(err, <-ended)
		}
		last = time.Now()
		if first.IsZero() {
			first = last
		} else if said, ok := ledger.ParseLatencies(line[0]); ok {
			took.Merge(said)
		}
	}
	if err := <-ended; err != nil {
		return guestWrites{}, err
	}
	if took.Count() == 0 {
		return guestWrites{}, errors.New("the guest has said nothing of its writes")
	}
	ms := func(q float64) float64 { return took.Quantile(q).Seconds() * 1000 }
	return guestWrites{ms(0.5), ms(0.99), float64(took.Count()) / last.Sub(first).Seconds(), last.Sub(first).Seconds()}, nil
}
