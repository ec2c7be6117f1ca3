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
