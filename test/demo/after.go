package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func (d *demo) change(ctx context.Context) error {
	title("7. Suppose the data is not what was expected: change the recovery point, back and forth")
	all, err := d.points(ctx)
	if err != nil {
		return err
	}
	for _, point := range []*umbrav1.RecoveryPoint{all[len(all)/2], all[0]} {
		guest, err := d.shadowConsole()
		if err != nil {
			return err
		}
		asked := time.Now()
		var answer umbrav1.ChangeRecoveryPointResponse
		request := &umbrav1.ChangeRecoveryPointRequest{Name: pairName, RecoveryPoint: point.GetName()}
		if err := d.call(ctx, "umbra.v1.FailoverService/ChangeRecoveryPoint", request, &answer); err != nil {
			return err
		}
		if _, err := d.booted(ctx, guest, answer.GetOperation(), asked, &d.changeIn); err != nil {
			return err
		}
	}
	return nil
}

// state shows the pair's state and what can be done.
func (d *demo) state(ctx context.Context) error {
	var answer umbrav1.GetDRPairResponse
	if err := d.call(ctx, "umbra.v1.FailoverService/GetDRPair", &umbrav1.GetDRPairRequest{Name: pairName}, &answer); err != nil {
		return err
	}
	pair := answer.GetDrPair()
	fmt.Println(pairLine(pair))
	allowed := make([]string, len(pair.GetAllowedActions()))
	for i, action := range pair.GetAllowedActions() {
		allowed[i] = strings.ToLower(short(action.String(), "DR_PAIR_ACTION_"))
	}
	if len(allowed) == 0 {
		allowed = []string{"nothing, while " + pair.GetCurrentOperation() + " is running"}
	}
	say("   allowed: %s", strings.Join(allowed, ", "))
	say("   next:    %s", pair.GetNextStep())
	return nil
}

func (d *demo) commit(ctx context.Context) error {
	title("8. The data is right: commit the failover, and delete the recovery points")
	request := &umbrav1.CommitFailoverRequest{Name: pairName, DeleteRecoveryPoints: true}
	var answer umbrav1.CommitFailoverResponse
	if err := d.call(ctx, "umbra.v1.FailoverService/CommitFailover", request, &answer); err != nil {
		return err
	}
	if err := d.follow(ctx, answer.GetOperation()); err != nil {
		return err
	}
	if err := d.state(ctx); err != nil {
		return err
	}
	blocks, err := d.scape.Shadow.Virsh(ctx, "dumpxml", server)
	if err != nil {
		return err
	}
	say("   The server's disks have %d backing files.", strings.Count(blocks, "<backingStore type="))

	title("9. The new primary server survives its own restart")
	if _, err := d.scape.Shadow.Virsh(ctx, "destroy", server); err != nil {
		return err
	}
	found, err := d.scape.Shadow.StartGuest(ctx, server, longest)
	if err != nil {
		return err
	}
	say("   Its ledger: last record %d, gaps %d, bad checksums %d.", found.Last, found.Gaps, found.BadChecksums)
	return nil
}

func (d *demo) summary(f flags) {
	lost := int64(d.written) - int64(d.recovered) //nolint:gosec // records are counted in thousands
	title("What was achieved")
	say("   RPO  %d of %d announced records were not in the newest point: %s of writes", max(0, lost), d.written,
		seconds(time.Duration(max(0, lost))*time.Second/recordRate))
	say("   RTO  %s from the request to the booted guest that had verified its data; a change of the point took %s",
		seconds(d.failoverIn), seconds(d.changeIn))
	say("   The whole demo took %s.", seconds(time.Since(d.began)))
	if f.Down {
		return
	}
	title("Go on playing")
	say("   The lab is still up. The control plane answers at %s:", d.scape.Socket)
	say("     %s -plaintext -unix %s list", f.Grpcurl, d.scape.Socket)
	say("     %s -plaintext -unix %s describe umbra.v1.FailoverService", f.Grpcurl, d.scape.Socket)
	say("     %s -plaintext -unix -d '{\"name\":\"%s\"}' %s umbra.v1.FailoverService/GetDRPair", f.Grpcurl, pairName, d.scape.Socket)
	say("     build/bin/umbra --server unix:%s pairs show %s", d.scape.Socket, server)
	say("   On the hosts:")
	say("     build/bin/umbra-lab --dir %s exec shadow -- virsh list --all", f.Dir)
	say("     build/bin/umbra-lab --dir %s console shadow %s --follow", f.Dir, server)
	say("   Take everything down:")
	say("     build/bin/umbra-lab --dir %s down", f.Dir)
}
