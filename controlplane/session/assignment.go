package session

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// assignmentFor derives from a record what the host should be doing for the pair. The host is one of the pair's two.
func assignmentFor(host string, rec drpair.Record, peer peer) *umbrav1.Assignment {
	p := rec.Pair
	assignment := &umbrav1.Assignment{DrPair: p.ID, DrPairUid: p.UID, Generation: p.Generation, Epoch: p.Epoch, TraceParent: p.TraceParent}
	if p.Restored {
		return hold(host, p)
	}
	if op := rec.Operation; op != nil {
		assignment.Operation, assignment.TraceParent = op.ID, tracing.OfOperation(op.ID, op.TraceParent).TraceParent()
	}
	if p.Main.Host == host {
		assignment.Role = &umbrav1.Assignment_Main{Main: mainAssignment(p, peer)}
		return assignment
	}
	assignment.Role = &umbrav1.Assignment_Shadow{Shadow: shadowAssignment(p, peer)}
	return assignment
}

// hold has the host go on with what it was assigned before the record was restored. It has no mode: a host of an earlier version,
// which knows nothing of this, does nothing for the pair.
func hold(host string, p drpair.Pair) *umbrav1.Assignment {
	assignment := &umbrav1.Assignment{DrPair: p.ID, DrPairUid: p.UID, Generation: p.Generation, Epoch: p.Epoch, Hold: true}
	if p.Main.Host == host {
		assignment.Role = &umbrav1.Assignment_Main{Main: &umbrav1.MainAssignment{}}
	} else {
		assignment.Role = &umbrav1.Assignment_Shadow{Shadow: &umbrav1.ShadowAssignment{}}
	}
	return assignment
}

func mainAssignment(p drpair.Pair, shadow peer) *umbrav1.MainAssignment {
	return &umbrav1.MainAssignment{
		Mode:                umbrav1.MainMode(umbrav1.MainMode_value["MAIN_MODE_"+string(drpair.DesiredMain(p))]),
		Server:              p.Main.Server,
		ServerUuid:          p.Main.UUID,
		ShadowHost:          p.Shadow.Host,
		ShadowDataAddress:   shadow.address,
		Policy:              Policy(p.Policy),
		ResyncGeneration:    p.ResyncGeneration,
		KeepFenced:          p.WasCommitted,
		ShadowGenerationMin: shadow.least,
	}
}

func shadowAssignment(p drpair.Pair, main peer) *umbrav1.ShadowAssignment {
	mode, attempt := drpair.DesiredShadow(p)
	assignment := &umbrav1.ShadowAssignment{
		Mode:                 umbrav1.ShadowMode(umbrav1.ShadowMode_value["SHADOW_MODE_"+string(mode)]),
		MainHost:             p.Main.Host,
		Policy:               Policy(p.Policy),
		ResyncGeneration:     p.ResyncGeneration,
		DeletePointsOnResync: p.DeletePointsOnResync,
		Server:               p.Shadow.Server,
		DeleteRecoveryPoints: p.DeletePoints,
		MainGenerationMin:    main.least,
	}
	if attempt != nil {
		assignment.Attempt = &umbrav1.Attempt{Number: attempt.Number, RecoveryPoint: attempt.Point, Force: attempt.Force}
	}
	return assignment
}

// Policy is the API's form of a policy.
func Policy(p drpair.Policy) *umbrav1.Policy {
	policy := &umbrav1.Policy{
		Interval:                durationpb.New(p.Interval),
		Retention:               &umbrav1.RetentionPolicy{StoreBytesMax: p.StoreBytesMax},
		BandwidthBytesPerSecond: p.BandwidthBytesPerSecond,
		Verification: &umbrav1.VerificationPolicy{
			RunTime: durationpb.New(p.Verification.RunTime), GuestAgent: p.Verification.GuestAgent,
			Timeout: durationpb.New(p.Verification.Timeout), TcpProbe: p.Verification.TCPProbe,
		},
		OnMainReturn: umbrav1.OnMainReturn(umbrav1.OnMainReturn_value["ON_MAIN_RETURN_"+string(p.OnMainReturn)]),
		Consistency:  umbrav1.Consistency_CONSISTENCY_CRASH,
		FenceTimeout: durationpb.New(p.FenceTimeout),
	}
	if p.ApplicationConsistent {
		policy.Consistency = umbrav1.Consistency_CONSISTENCY_APPLICATION
	}
	for _, rule := range p.Retention {
		policy.Retention.Rules = append(policy.Retention.Rules, &umbrav1.RetentionRule{
			MaxAge: durationpb.New(rule.MaxAge), Spacing: durationpb.New(rule.Spacing),
		})
	}
	for _, mapping := range p.Networks {
		policy.NetworkMappings = append(policy.NetworkMappings, &umbrav1.NetworkMapping{MainNetwork: mapping.Main, ShadowNetwork: mapping.Shadow})
	}
	return policy
}
