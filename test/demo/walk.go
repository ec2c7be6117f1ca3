package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/pkg/lab/console"
	"github.com/umbra-dr/umbra/pkg/lab/ledger"
	"github.com/umbra-dr/umbra/test/landscape"
)

const (
	server     = "ledger"
	pairName   = "drPairs/ledger"
	points     = 8
	recordRate = 25
	longest    = 2 * time.Minute
)

type demo struct {
	scape   *landscape.Landscape
	grpcurl string
	began   time.Time

	killed     time.Time
	written    uint64        // last record announced before the host was killed
	recovered  uint64        // last record that the shadow server found
	failoverIn time.Duration // from the request to the ledger's line
	changeIn   time.Duration
}

func (d *demo) done(what string) {
	say("   %s, %s after the start", what, seconds(time.Since(d.began)))
}

func (d *demo) walk(ctx context.Context) error {
	for _, part := range []func(context.Context) error{
		d.boot, d.protect, d.replicate, d.kill, d.failover, d.change, d.commit,
	} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) boot(ctx context.Context) error {
	title("2. Boot the main server: it writes numbered records all over its disk and announces each when it is flushed")
	if err := d.scape.Main.DefineGuest(ctx, lab.GuestSpec{Name: server, RecordsPerSecond: recordRate}); err != nil {
		return err
	}
	if _, err := d.scape.Main.StartGuest(ctx, server, longest); err != nil {
		return err
	}
	d.done("the main server runs")
	err := d.scape.WaitHost(ctx, landscape.MainHost, func(h *umbrav1.Host) bool { return len(h.GetServers()) > 0 })
	if err != nil {
		return err
	}
	var hosts umbrav1.ListHostsResponse
	err = d.call(ctx, "umbra.v1.HostService/ListHosts", &umbrav1.ListHostsRequest{}, &hosts)
	for _, host := range hosts.GetHosts() {
		fmt.Println(hostLines(host))
	}
	return err
}

func (d *demo) protect(ctx context.Context) error {
	title("3. Protect it")
	request := &umbrav1.CreateDRPairRequest{DrPairId: server, DrPair: &umbrav1.DRPair{
		Main:   &umbrav1.MainServer{Host: "hosts/main", Server: server},
		Shadow: &umbrav1.ShadowServer{Host: "hosts/shadow"},
		Policy: &umbrav1.Policy{Interval: durationpb.New(time.Second)},
	}}
	if err := d.call(ctx, "umbra.v1.ProtectionService/CreateDRPair", request, &umbrav1.CreateDRPairResponse{}); err != nil {
		return err
	}
	return d.watch(ctx, func(pair *umbrav1.DRPair) bool {
		return pair.GetState() == umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING
	})
}

func (d *demo) watch(ctx context.Context, until func(*umbrav1.DRPair) bool) error {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	last := ""
	return d.stream(ctx, "umbra.v1.FailoverService/WatchDRPairs", &umbrav1.WatchDRPairsRequest{Names: []string{pairName}},
		func(message json.RawMessage) (bool, error) {
			var change umbrav1.WatchDRPairsResponse
			if err := protojson.Unmarshal(message, &change); err != nil {
				return false, err
			}
			pair := change.GetDrPair()
			if pair == nil {
				return true, nil
			}
			if line := pairLine(pair); line != last {
				fmt.Println(line)
				last = line
			}
			return !until(pair), nil
		})
}

func (d *demo) replicate(ctx context.Context) error {
	title("4. Recovery points are made each second while the server writes")
	err := d.watch(ctx, func(pair *umbrav1.DRPair) bool { return pair.GetReplication().GetRecoveryPointCount() >= points })
	if err != nil {
		return err
	}
	_, err = d.points(ctx)
	return err
}

// points lists the recovery points, newest first.
func (d *demo) points(ctx context.Context) ([]*umbrav1.RecoveryPoint, error) {
	var answer umbrav1.ListRecoveryPointsResponse
	err := d.call(ctx, "umbra.v1.FailoverService/ListRecoveryPoints", &umbrav1.ListRecoveryPointsRequest{Parent: pairName}, &answer)
	for _, point := range answer.GetRecoveryPoints() {
		fmt.Println(pointLine(point))
	}
	return answer.GetRecoveryPoints(), err
}

func (d *demo) kill(ctx context.Context) error {
	title("5. The worst day: the main host loses power")
	if err := d.scape.Main.Kill(ctx); err != nil {
		return err
	}
	d.killed = time.Now()
	told, err := d.scape.Main.Console(server).Ledger()
	if err != nil {
		return err
	}
	d.written = told.Last
	say("   QEMU, libvirtd and hostd are dead and the link is down. The server had announced record %d.", d.written)
	return nil
}

func (d *demo) failover(ctx context.Context) error {
	title("6. Failover to the newest recovery point")
	guest, err := d.shadowConsole()
	if err != nil {
		return err
	}
	asked := time.Now()
	var answer umbrav1.FailoverResponse
	err = d.call(ctx, "umbra.v1.FailoverService/Failover", &umbrav1.FailoverRequest{Name: pairName, RequestId: "demo-failover"}, &answer)
	if err != nil {
		return err
	}
	if err := d.state(ctx); err != nil {
		return err
	}
	found, err := d.booted(ctx, guest, answer.GetOperation(), asked, &d.failoverIn)
	if err != nil {
		return err
	}
	d.recovered = found.Last
	say("   Of %d announced records the newest point holds %d.", d.written, found.Last)
	return d.state(ctx)
}

// shadowConsole reads the shadow server's console from what comes next.
func (d *demo) shadowConsole() (*console.Console, error) {
	guest := d.scape.Shadow.Console(server)
	return guest, guest.SkipToEnd()
}

// booted shows the operation's steps to its end, and what the guest finds in its ledger.
func (d *demo) booted(ctx context.Context, console *console.Console, op *umbrav1.Operation, asked time.Time, took *time.Duration) (ledger.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	type outcome struct {
		report ledger.Report
		at     time.Time
		err    error
	}
	told := make(chan outcome, 1)
	go func() {
		report, err := d.scape.NextBoot(ctx, console)
		told <- outcome{report: report, at: time.Now(), err: err}
	}()
	if err := d.follow(ctx, op); err != nil {
		return ledger.Report{}, err
	}
	result := <-told
	if result.err != nil {
		return ledger.Report{}, result.err
	}
	*took = result.at.Sub(asked)
	say("   The shadow server's ledger: last record %d, gaps %d, bad checksums %d; %s after the request.",
		result.report.Last, result.report.Gaps, result.report.BadChecksums, seconds(*took))
	return result.report, nil
}

func (d *demo) follow(ctx context.Context, op *umbrav1.Operation) error {
	shown := map[umbrav1.StepKind]string{}
	var last *umbrav1.Operation
	err := d.stream(ctx, "umbra.v1.FailoverService/WatchOperation", &umbrav1.WatchOperationRequest{Name: op.GetName()},
		func(message json.RawMessage) (bool, error) {
			var change umbrav1.WatchOperationResponse
			if err := protojson.Unmarshal(message, &change); err != nil {
				return false, err
			}
			last = change.GetOperation()
			for _, line := range stepLines(last, shown) {
				fmt.Println(line)
			}
			return true, nil
		})
	if err != nil {
		return err
	}
	say("   %s", strings.ToLower(short(last.GetState().String(), "OPERATION_STATE_")))
	if last.GetState() != umbrav1.OperationState_OPERATION_STATE_SUCCEEDED {
		return fmt.Errorf("%s %s: %s", op.GetName(), last.GetState(), last.GetFailure().GetMessage())
	}
	return nil
}
