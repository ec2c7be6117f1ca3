package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/test/landscape"
)

const (
	guest    = "web"
	pairName = "drPairs/" + guest
	// kept is how long points are kept: a run is much longer, so most of it is in a steady state.
	kept = 2 * time.Minute
	// turn is the time from one interruption of replication to the next.
	turn        = time.Minute
	restartEach = 5 // turns
	longest     = 4 * time.Minute
)

type world struct {
	*landscape.Landscape
}

// up has a guest replicated each second that writes a megabyte a second.
func up(ctx context.Context, f flags, dir string) (*world, error) {
	w := &world{}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return w, fmt.Errorf("making the folder of the run: %w", err)
	}
	var err error
	w.Landscape, err = landscape.Up(ctx, landscape.Config{
		Name: "s" + strconv.FormatInt(int64(os.Getpid()), 36), Dir: filepath.Join(dir, "lab"),
		CacheDir: "/var/tmp/umbra-lab-cache", Binaries: f.Binaries,
	})
	if err != nil {
		return w, err
	}
	if err := w.Main.DefineGuest(ctx, lab.GuestSpec{Name: guest, RateBytes: 1 << 20}); err != nil {
		return w, err
	}
	if _, err := w.Main.StartGuest(ctx, guest, longest); err != nil {
		return w, err
	}
	_, err = w.Protection.CreateDRPair(ctx, &umbrav1.CreateDRPairRequest{DrPairId: guest, DrPair: &umbrav1.DRPair{
		Main:   &umbrav1.MainServer{Host: "hosts/" + landscape.MainHost, Server: guest},
		Shadow: &umbrav1.ShadowServer{Host: "hosts/" + landscape.ShadowHost},
		Policy: &umbrav1.Policy{
			Interval:  durationpb.New(time.Second),
			Retention: &umbrav1.RetentionPolicy{Rules: []*umbrav1.RetentionRule{{MaxAge: durationpb.New(kept)}}},
		},
	}})
	if err != nil {
		return w, fmt.Errorf("protecting the guest: %w", err)
	}
	return w, w.replicates(ctx)
}

func (w *world) down(ctx context.Context) error {
	if w.Landscape == nil {
		return nil
	}
	return w.Down(ctx)
}

// replicates waits until a point is there that was made from now on.
func (w *world) replicates(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, longest)
	defer stop()
	from := time.Now()
	_, err := w.WaitPair(ctx, guest, func(p *umbrav1.DRPair) bool {
		return p.GetState() == umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING &&
			p.GetReplication().GetNewestRecoveryPointTime().AsTime().After(from)
	})
	return err
}

// work interrupts replication once a turn, as its operators would, until ctx ends.
func (w *world) work(ctx context.Context) error {
	ticker := time.NewTicker(turn)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		interrupt := w.pause
		if n%restartEach == 0 {
			interrupt = w.restart
		}
		// What is begun is finished, so that the run ends in the state that it was in before.
		whole := context.WithoutCancel(ctx)
		if err := errors.Join(interrupt(whole), w.replicates(whole)); err != nil {
			return err
		}
		fmt.Printf("%s  turn %d done\n", time.Now().Format(time.TimeOnly), n)
	}
}

func (w *world) pause(ctx context.Context) error {
	if _, err := w.Protection.PauseReplication(ctx, &umbrav1.PauseReplicationRequest{Name: pairName}); err != nil {
		return fmt.Errorf("pausing replication: %w", err)
	}
	if _, err := w.Points(ctx, guest); err != nil {
		return err
	}
	if _, err := w.Protection.ResumeReplication(ctx, &umbrav1.ResumeReplicationRequest{Name: pairName}); err != nil {
		return fmt.Errorf("resuming replication: %w", err)
	}
	return nil
}

func (w *world) restart(ctx context.Context) error {
	answer, err := w.Failover.RestartReplication(ctx, &umbrav1.RestartReplicationRequest{Name: pairName})
	if err != nil {
		return fmt.Errorf("restarting replication: %w", err)
	}
	_, err = w.WaitOperation(ctx, answer.GetOperation().GetName())
	return err
}

// rest checks that replication leaves nothing behind once it is paused.
func (w *world) rest(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, longest)
	defer stop()
	if err := w.replicates(ctx); err != nil {
		return err
	}
	if _, err := w.Protection.PauseReplication(ctx, &umbrav1.PauseReplicationRequest{Name: pairName}); err != nil {
		return fmt.Errorf("pausing replication: %w", err)
	}
	if _, err := w.WaitState(ctx, guest, umbrav1.DRPairState_DR_PAIR_STATE_REPLICATION_PAUSED); err != nil {
		return err
	}
	checkpoints, err := w.Main.Virsh(ctx, "checkpoint-list", guest, "--name")
	if err != nil {
		return err
	}
	if left := strings.Fields(checkpoints); len(left) > 2 { // the newest point's, and that of a cycle that was cut
		return fmt.Errorf("%d checkpoints are left: %v", len(left), left)
	}
	fmt.Println("at rest: no checkpoint too many")
	return nil
}
