package main

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/umbra-dr/umbra/pkg/lab/ledger"
)

// keeper writes the ledger at its rate.
type keeper struct {
	settings settings
	last     uint64
	// announced is what a probe is told; the probe's goroutines read it.
	announced atomic.Uint64
}

// keep writes records one at a time until the context ends, which is how the guest is shut down in order.
func (k *keeper) keep(ctx context.Context, writer *ledger.Writer) error {
	k.announced.Store(k.last)
	if k.settings.rate == 0 {
		<-ctx.Done()
		return nil
	}
	if k.settings.measure {
		return k.measure(ctx, writer)
	}
	beat := time.NewTicker(time.Second / time.Duration(k.settings.rate))
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			fmt.Println(ledger.Record(k.last))
			fmt.Println(ledger.Prefix + "off at record " + strconv.FormatUint(k.last, 10))
			return nil
		case <-beat.C:
		}
		if err := writer.Write(k.last + 1); err != nil {
			return err
		}
		k.last++
		if k.last%k.settings.announce == 0 {
			fmt.Println(ledger.Record(k.last))
			k.announced.Store(k.last)
		}
	}
}

// measureEvery is how often a guest that measures says what it has measured.
const measureEvery = time.Second

// measure writes one record after the other, without a pause, and says how long they took.
func (k *keeper) measure(ctx context.Context, writer *ledger.Writer) error {
	took, said := ledger.Latencies{}, time.Now()
	for ctx.Err() == nil {
		began := time.Now()
		if err := writer.Write(k.last + 1); err != nil {
			return err
		}
		k.last++
		now := time.Now()
		took.Add(now.Sub(began))
		if now.Sub(said) >= measureEvery {
			fmt.Println(took.Line())
			took, said = ledger.Latencies{}, now
		}
	}
	return nil
}
