package libvirt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/clock"
)

const (
	// thawTimeout bounds one attempt to thaw.
	thawTimeout = 10 * time.Second
	// A guest that is busy freezing does not answer a thaw; these many more attempts, so far apart, are made.
	thawRetriesMax = 60
	thawRetryEvery = 2 * time.Second
)

var (
	errNothingFrozen = fmt.Errorf("no file system was frozen: %w", hypervisor.ErrAgent)
	errThawedEarly   = fmt.Errorf("the file systems had to be thawed before the backup had begun: %w", hypervisor.ErrAgent)
	errThawedAlready = fmt.Errorf("the file systems had thawed by themselves: %w", hypervisor.ErrAgent)
	errNoAgent       = fmt.Errorf("the server has no guest agent running: %w", hypervisor.ErrAgent)
)

// fileSystems are those of one guest, as its agent knows them.
type fileSystems interface {
	// freeze returns how many were frozen. errNoAgent means that nothing was asked of the guest.
	freeze(ctx context.Context) (int, error)
	// thaw returns how many were thawed.
	thaw(ctx context.Context) (int, error)
}

// freezer has something happen while a guest's file systems are frozen.
type freezer struct {
	fileSystems fileSystems
	clock       clock.Clock
	errands     *errands
	log         *slog.Logger
}

// during calls moment with the file systems frozen if that is possible within the budget, and without if not. frozen is
// whether they were frozen all the time, else why tells why not; failed is moment's error. A guest that was asked to
// freeze is thawed, when moment has returned or at the end of the budget; one that does not answer is asked on in the background.
func (f freezer) during(ctx context.Context, budget time.Duration, moment func(context.Context) error) (frozen bool, why, failed error) {
	until := f.clock.Now().Add(budget)
	freezing, cancel := context.WithTimeout(ctx, budget)
	count, why := f.fileSystems.freeze(freezing)
	cancel()
	if errors.Is(why, errNoAgent) {
		return false, why, moment(ctx)
	}
	if why != nil || count == 0 {
		// The guest may freeze yet, so the thaw does not wait for the backup.
		_ = f.thaw(ctx)
		if why == nil {
			why = errNothingFrozen
		}
		return false, why, moment(ctx)
	}
	begun := make(chan struct{})
	thawed := make(chan error, 1)
	go func() { thawed <- f.thawAt(ctx, until, begun) }()
	failed = moment(ctx)
	close(begun)
	if why = <-thawed; why != nil {
		return false, why, failed
	}
	return true, nil, failed
}

// thawAt thaws when begun is closed, or at the end of the budget, which is errThawedEarly.
func (f freezer) thawAt(ctx context.Context, until time.Time, begun <-chan struct{}) error {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-begun:
			cancel()
		case <-waiting.Done():
		}
	}()
	inTime := f.clock.Wait(waiting, until.Sub(f.clock.Now())) != nil
	if err := f.thaw(ctx); err != nil {
		return err
	}
	if !inTime {
		return errThawedEarly
	}
	return nil
}

// thaw is tried even when the caller has given up, since a guest must not stay frozen.
func (f freezer) thaw(ctx context.Context) error {
	attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), thawTimeout)
	defer cancel()
	count, err := f.fileSystems.thaw(attempt)
	if err != nil {
		f.log.WarnContext(ctx, "guest does not answer the thaw, it is repeated", "error", err)
		f.errands.start(f.keepThawing)
		return err
	}
	if count == 0 {
		return errThawedAlready
	}
	return nil
}

func (f freezer) keepThawing(ctx context.Context) {
	for range thawRetriesMax {
		if f.clock.Wait(ctx, thawRetryEvery) != nil {
			return
		}
		attempt, cancel := context.WithTimeout(ctx, thawTimeout)
		_, err := f.fileSystems.thaw(attempt)
		cancel()
		if err == nil || errors.Is(err, errNoAgent) || errors.Is(err, hypervisor.ErrNotFound) {
			return
		}
	}
	f.log.ErrorContext(ctx, "guest did not answer any thaw, its file systems may be frozen")
}

// saysNoAgent: libvirt has one code for agents that are not there and those that do not answer.
func saysNoAgent(err error) bool { return strings.Contains(err.Error(), "not connected") }
