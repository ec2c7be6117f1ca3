package api

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/session"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// pair is the pair's message: what is stored, with what its hosts last reported.
func (d *Deps) pair(record drpair.Record) *umbrav1.DRPair {
	now := d.Clock.Now()
	p := record.Pair
	seen := seenOf(p, d.Observed)
	message := &umbrav1.DRPair{
		Name:       pairName(p.ID),
		Uid:        p.UID,
		Etag:       store.ETag(p),
		CreateTime: timestamp(p.CreateTime),
		UpdateTime: timestamp(p.UpdateTime),
		Main: &umbrav1.MainServer{
			Host: hostName(p.Main.Host), Server: p.Main.Server, ServerUuid: p.Main.UUID,
			PowerState: d.powerState(p.Main.Host, seen.main.GetServerState()),
		},
		Shadow: &umbrav1.ShadowServer{
			Host: hostName(p.Shadow.Host), Server: p.Shadow.Server, PowerState: d.powerState(p.Shadow.Host, seen.shadow.GetServerState()),
		},
		Policy:         session.Policy(p.Policy),
		State:          enum[umbrav1.DRPairState](umbrav1.DRPairState_value, statePrefix, p.State),
		AllowedActions: actionsMessage(drpair.Allowed(p)),
		Epoch:          p.Epoch,
		Failure:        failureMessage(p.Failure),
		Conditions:     conditions(p, seen, now),
		Replication:    replication(p, seen, now),
		NextStep:       drpair.NextStep(p),
	}
	if record.Operation != nil {
		message.CurrentOperation = operationName(record.Operation.ID)
	}
	if p.Active != nil {
		message.ActiveRecoveryPoint = pointName(p.ID, p.Active.Point)
	}
	return message
}

// powerState is what the host last said of a server, as long as it would say otherwise if that changed.
func (d *Deps) powerState(host string, said umbrav1.PowerState) umbrav1.PowerState {
	if now, _ := d.Observed.Host(host); !now.Connected {
		return umbrav1.PowerState_POWER_STATE_UNSPECIFIED
	}
	return said
}

// seen is what is known of a pair from its hosts. Reports that have not come are nil.
type seen struct {
	main                 *umbrav1.MainReport
	shadow               *umbrav1.ShadowReport
	mainTime, shadowTime time.Time
	shadowConnected      bool
	shadowChangeTime     time.Time
	newest               time.Time // the moment that the newest point holds, by the control plane's clock
}

func seenOf(p drpair.Pair, hosts Observed) seen {
	var s seen
	if main, ok := hosts.Main(p.ID); ok && main.Of(p.UID) {
		s.main, s.mainTime = main.Report, main.Time
	}
	if shadow, ok := hosts.Shadow(p.ID); ok && shadow.Of(p.UID) {
		s.shadow, s.shadowTime = shadow.Report, shadow.Time
	}
	if at := s.shadow.GetNewestRecoveryPointTime(); at != nil {
		main, _ := hosts.Host(p.Main.Host)
		s.newest = at.AsTime().Add(-main.Inventory.GetClockOffset().AsDuration())
	}
	host, _ := hosts.Host(p.Shadow.Host)
	s.shadowConnected, s.shadowChangeTime = host.Connected, host.ChangeTime
	return s
}

// replicating tells whether the pair is in a state in which points are made, or should be.
func replicating(p drpair.Pair) bool {
	return drpair.DesiredMain(p) != drpair.MainFence && p.State != drpair.Deleting
}

func replication(p drpair.Pair, s seen, now time.Time) *umbrav1.ReplicationStatus {
	status := &umbrav1.ReplicationStatus{
		NewestRecoveryPoint:     pointName(p.ID, s.shadow.GetNewestRecoveryPoint()),
		NewestRecoveryPointTime: s.shadow.GetNewestRecoveryPointTime(),
		RecoveryPointCount:      s.shadow.GetRecoveryPointCount(),
		StoreBytes:              s.shadow.GetStoreBytes(),
		MainReportTime:          timestamp(s.mainTime),
		ShadowReportTime:        timestamp(s.shadowTime),
	}
	if !replicating(p) {
		return status
	}
	if !s.newest.IsZero() {
		status.Rpo = durationpb.New(age(s.newest, now))
	}
	if progress := s.main.GetProgress(); progress != nil {
		status.Progress = proto.CloneOf(progress)
	}
	return status
}

// age is how long ago a moment was. What is left of a difference between clocks makes nothing younger than new.
func age(moment, now time.Time) time.Duration { return max(0, now.Sub(moment)) }
