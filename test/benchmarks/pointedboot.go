package main

import (
	"context"
	"fmt"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// bootMax bounds the wait for a guest.
const bootMax = 2 * time.Minute

func (p *pointedPair) middle() string { return p.points[len(p.points)/2] }

// fromEnd is a point near one end of the row.
func (p *pointedPair) fromEnd(end string, places int) string {
	if end == newestPoint {
		return p.points[places]
	}
	return p.points[len(p.points)-1-places]
}

// failOver asks for a failover and returns the seconds to the guest's first line.
func (p *pointedPair) failOver(ctx context.Context, point string) (float64, error) {
	return p.boots(ctx, pointedServer, func() (*umbrav1.Operation, error) {
		return p.askFailover(ctx, point)
	})
}

// change asks for another point and returns the seconds to the guest's first line.
func (p *pointedPair) change(ctx context.Context, point string) (float64, error) {
	return p.boots(ctx, pointedServer, func() (*umbrav1.Operation, error) {
		answer, err := p.Failover.ChangeRecoveryPoint(ctx, &umbrav1.ChangeRecoveryPointRequest{Name: pairName(pointedServer), RecoveryPoint: point})
		return answer.GetOperation(), err
	})
}

// startFlat starts the flat copy, and takes its power when the guest has spoken.
func (p *pointedPair) startFlat(ctx context.Context, end string) (float64, error) {
	took, err := p.boots(ctx, flatServer(end), func() (*umbrav1.Operation, error) {
		_, err := p.Shadow.Virsh(ctx, "start", flatServer(end))
		return nil, err
	})
	if err != nil {
		return 0, err
	}
	_, err = p.Shadow.Virsh(ctx, "destroy", flatServer(end))
	return took, err
}

// boots measures from a request to the first line of the guest that boots by it, and then waits for the end of the request's operation.
func (p *pointedPair) boots(ctx context.Context, server string, ask func() (*umbrav1.Operation, error)) (float64, error) {
	ctx, stop := context.WithTimeout(ctx, bootMax)
	defer stop()
	log := p.Shadow.Console(server)
	if err := log.SkipToEnd(); err != nil {
		return 0, err
	}
	var op *umbrav1.Operation
	took, err := timed(func() (err error) {
		if op, err = ask(); err != nil {
			return err
		}
		report, err := p.NextBoot(ctx, log)
		if err == nil && !report.Intact() {
			err = fmt.Errorf("the guest found its disk damaged: %+v", report)
		}
		return err
	})
	if err != nil || op == nil {
		return took, err
	}
	return took, p.succeed(ctx, op)
}
