package api_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestWhatDoesNotExistIsNotFoundAndNamed(t *testing.T) {
	p := startPlane(t)
	p.protect()
	ctx := t.Context()
	calls := map[string]func() error{
		"drPairs/x get": func() error {
			_, err := p.failover.GetDRPair(ctx, &umbrav1.GetDRPairRequest{Name: "drPairs/x"})
			return err
		},
		"drPairs/x points": func() error {
			_, err := p.failover.ListRecoveryPoints(ctx, &umbrav1.ListRecoveryPointsRequest{Parent: "drPairs/x"})
			return err
		},
		"drPairs/x failover": func() error {
			_, err := p.failover.Failover(ctx, &umbrav1.FailoverRequest{Name: "drPairs/x"})
			return err
		},
		"drPairs/x plan": func() error {
			_, err := p.failover.Failover(ctx, &umbrav1.FailoverRequest{Name: "drPairs/x", ValidateOnly: true})
			return err
		},
		"drPairs/x commit": func() error {
			_, err := p.failover.CommitFailover(ctx, &umbrav1.CommitFailoverRequest{Name: "drPairs/x"})
			return err
		},
		"drPairs/x restart": func() error {
			_, err := p.failover.RestartReplication(ctx, &umbrav1.RestartReplicationRequest{Name: "drPairs/x"})
			return err
		},
		"drPairs/x operations": func() error {
			_, err := p.failover.ListOperations(ctx, &umbrav1.ListOperationsRequest{DrPair: "drPairs/x"})
			return err
		},
		"drPairs/x watch": func() error {
			stream, _ := p.failover.WatchDRPairs(ctx, &umbrav1.WatchDRPairsRequest{Names: []string{"drPairs/x"}})
			_, err := stream.Recv()
			return err
		},
		"drPairs/x bundle": func() error {
			stream, _ := p.failover.GetSupportBundle(ctx, &umbrav1.GetSupportBundleRequest{Name: "drPairs/x"})
			_, err := stream.Recv()
			return err
		},
		"drPairs/x pause": func() error {
			_, err := p.protection.PauseReplication(ctx, &umbrav1.PauseReplicationRequest{Name: "drPairs/x"})
			return err
		},
		"drPairs/x resume": func() error {
			_, err := p.protection.ResumeReplication(ctx, &umbrav1.ResumeReplicationRequest{Name: "drPairs/x"})
			return err
		},
		"drPairs/x delete": func() error {
			_, err := p.protection.DeleteDRPair(ctx, &umbrav1.DeleteDRPairRequest{Name: "drPairs/x"})
			return err
		},
		"drPairs/x update": func() error {
			_, err := p.protection.UpdateDRPair(ctx, &umbrav1.UpdateDRPairRequest{DrPair: &umbrav1.DRPair{Name: "drPairs/x"}})
			return err
		},
		"operations/x get": func() error {
			_, err := p.failover.GetOperation(ctx, &umbrav1.GetOperationRequest{Name: "operations/x"})
			return err
		},
		"operations/x watch": func() error {
			stream, _ := p.failover.WatchOperation(ctx, &umbrav1.WatchOperationRequest{Name: "operations/x"})
			_, err := stream.Recv()
			return err
		},
		"hosts/x get": func() error { _, err := p.hosts.GetHost(ctx, &umbrav1.GetHostRequest{Name: "hosts/x"}); return err },
		"hosts/x main": func() error {
			request := createRequest("b", "vm2")
			request.DrPair.Main.Host = "hosts/x"
			_, err := p.protection.CreateDRPair(ctx, request)
			return err
		},
		"hosts/x shadow": func() error {
			request := createRequest("b", "vm2")
			request.DrPair.Shadow.Host = "hosts/x"
			_, err := p.protection.CreateDRPair(ctx, request)
			return err
		},
		"hosts/main-host/servers/x create": func() error { _, err := p.protection.CreateDRPair(ctx, createRequest("b", "x")); return err },
		"drPairs/a/recoveryPoints/rp-9 failover": func() error {
			_, err := p.failover.Failover(ctx, &umbrav1.FailoverRequest{Name: "drPairs/a", RecoveryPoint: point(9)})
			return err
		},
	}
	for what, call := range calls {
		t.Run(what, func(t *testing.T) {
			name, _, _ := strings.Cut(what, " ")
			wantMissing(t, call(), name)
		})
	}
}

func TestAMalformedRequestIsInvalidAndItsFieldNamed(t *testing.T) {
	p := startPlane(t)
	p.protect()
	ctx := t.Context()
	creating := func(change func(*umbrav1.CreateDRPairRequest)) func() error {
		request := createRequest("b", "vm2")
		request.DrPair.Policy = &umbrav1.Policy{}
		change(request)
		return func() error { _, err := p.protection.CreateDRPair(ctx, request); return err }
	}
	policy := func(change func(*umbrav1.Policy)) func() error {
		return creating(func(r *umbrav1.CreateDRPairRequest) { change(r.GetDrPair().GetPolicy()) })
	}
	rule := func(age, spacing *durationpb.Duration) *umbrav1.RetentionPolicy {
		return &umbrav1.RetentionPolicy{Rules: []*umbrav1.RetentionRule{{MaxAge: age, Spacing: spacing}}}
	}
	updating := func(pair *umbrav1.DRPair, paths ...string) func() error {
		return func() error {
			_, err := p.protection.UpdateDRPair(ctx, &umbrav1.UpdateDRPairRequest{DrPair: pair, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
			return err
		}
	}
	listing := func(request *umbrav1.ListDRPairsRequest) func() error {
		return func() error { _, err := p.failover.ListDRPairs(ctx, request); return err }
	}
	failing := func(request *umbrav1.FailoverRequest) func() error {
		return func() error { _, err := p.failover.Failover(ctx, request); return err }
	}
	cases := map[string]func() error{
		"name of no pair":                                   failing(&umbrav1.FailoverRequest{Name: "drPairs/UPPER"}),
		"name empty":                                        failing(&umbrav1.FailoverRequest{}),
		"recovery_point of another pair":                    failing(&umbrav1.FailoverRequest{Name: "drPairs/a", RecoveryPoint: "drPairs/b/recoveryPoints/rp-1"}),
		"recovery_point malformed":                          failing(&umbrav1.FailoverRequest{Name: "drPairs/a", RecoveryPoint: "newest"}),
		"request_id too long":                               failing(&umbrav1.FailoverRequest{Name: "drPairs/a", RequestId: strings.Repeat("x", 129)}),
		"dr_pair_id malformed":                              creating(func(r *umbrav1.CreateDRPairRequest) { r.DrPairId = "-a" }),
		"dr_pair missing":                                   creating(func(r *umbrav1.CreateDRPairRequest) { r.DrPair = nil }),
		"dr_pair.main missing":                              creating(func(r *umbrav1.CreateDRPairRequest) { r.DrPair.Main = nil }),
		"dr_pair.main.host malformed":                       creating(func(r *umbrav1.CreateDRPairRequest) { r.DrPair.Main.Host = "main-host" }),
		"dr_pair.shadow.host the same":                      creating(func(r *umbrav1.CreateDRPairRequest) { r.DrPair.Shadow.Host = "hosts/main-host" }),
		"dr_pair.policy.interval of 0":                      policy(func(p *umbrav1.Policy) { p.Interval = durationpb.New(0) }),
		"dr_pair.policy.interval negative":                  policy(func(p *umbrav1.Policy) { p.Interval = durationpb.New(-time.Second) }),
		"dr_pair.policy.interval no duration":               policy(func(p *umbrav1.Policy) { p.Interval = &durationpb.Duration{Seconds: 5, Nanos: 2_000_000_000} }),
		"dr_pair.policy.retention.rules empty":              policy(func(p *umbrav1.Policy) { p.Retention = &umbrav1.RetentionPolicy{} }),
		"dr_pair.policy.retention.rules[0].max_age of 0":    policy(func(p *umbrav1.Policy) { p.Retention = rule(durationpb.New(0), nil) }),
		"dr_pair.policy.retention.rules[0].max_age missing": policy(func(p *umbrav1.Policy) { p.Retention = rule(nil, durationpb.New(1)) }),
		"dr_pair.policy.network_mappings twice": policy(func(p *umbrav1.Policy) {
			p.NetworkMappings = []*umbrav1.NetworkMapping{{MainNetwork: "a", ShadowNetwork: "b"}, {MainNetwork: "a", ShadowNetwork: "c"}}
		}),
		"dr_pair.policy.on_main_return unknown": policy(func(p *umbrav1.Policy) { p.OnMainReturn = 77 }),
		"dr_pair.policy.verification.tcp_probe without port": policy(func(p *umbrav1.Policy) {
			p.Verification = &umbrav1.VerificationPolicy{TcpProbe: "192.0.2.1"}
		}),
		"dr_pair.policy.verification.timeout shorter than run_time": policy(func(p *umbrav1.Policy) {
			p.Verification = &umbrav1.VerificationPolicy{RunTime: durationpb.New(time.Minute), Timeout: durationpb.New(time.Second)}
		}),
		"dr_pair.name malformed":                            updating(&umbrav1.DRPair{Name: "a"}),
		"update_mask of main":                               updating(&umbrav1.DRPair{Name: "drPairs/a"}, "main.host"),
		"update_mask of no field":                           updating(&umbrav1.DRPair{Name: "drPairs/a"}, "policy.colour"),
		"update_mask into a duration":                       updating(&umbrav1.DRPair{Name: "drPairs/a"}, "policy.interval.seconds"),
		"dr_pair.policy.interval updated to 0":              updating(&umbrav1.DRPair{Name: "drPairs/a", Policy: &umbrav1.Policy{Interval: durationpb.New(0)}}, "policy.interval"),
		"dr_pair.policy.retention.rules updated to nothing": updating(&umbrav1.DRPair{Name: "drPairs/a"}, "policy.retention.rules"),
		"page_size negative":                                listing(&umbrav1.ListDRPairsRequest{PageSize: -1}),
		"page_token of nothing":                             listing(&umbrav1.ListDRPairsRequest{PageToken: "garbage!"}),
		"filter of no form":                                 listing(&umbrav1.ListDRPairsRequest{Filter: "state"}),
		"filter by no field":                                listing(&umbrav1.ListDRPairsRequest{Filter: "colour = red"}),
		"filter by no state":                                listing(&umbrav1.ListDRPairsRequest{Filter: "state = HAPPY"}),
		"filter by no host":                                 listing(&umbrav1.ListDRPairsRequest{Filter: "main.host = a"}),
		"names[1] malformed": func() error {
			stream, _ := p.failover.WatchDRPairs(ctx, &umbrav1.WatchDRPairsRequest{Names: []string{"drPairs/a", "b"}})
			_, err := stream.Recv()
			return err
		},
		"resume_token of nothing": func() error {
			stream, _ := p.failover.WatchDRPairs(ctx, &umbrav1.WatchDRPairsRequest{ResumeToken: "garbage"})
			_, err := stream.Recv()
			return err
		},
	}
	for what, call := range cases {
		t.Run(what, func(t *testing.T) {
			field, _, _ := strings.Cut(what, " ")
			wantField(t, call(), field)
		})
	}
}

func TestAWrongStateIsRefusedWithTheStateAndWhatIsAllowed(t *testing.T) {
	p := startPlane(t)
	p.protect()
	_, err := p.failover.CommitFailover(t.Context(), &umbrav1.CommitFailoverRequest{Name: "drPairs/a"})
	info := wantError(t, err, codes.FailedPrecondition, "STATE_NOT_ALLOWED")
	if got := info.GetMetadata(); got["state"] != "REPLICATING" || got["allowed_actions"] != "FAILOVER,RESTART_REPLICATION,PAUSE_REPLICATION,UPDATE,DELETE" {
		t.Errorf("the error says %v", got)
	}
	if violations := detail[*errdetails.PreconditionFailure](err).GetViolations(); len(violations) != 1 || violations[0].GetSubject() != "drPairs/a" {
		t.Errorf("the precondition is %v", violations)
	}
	// The state comes before the point: nothing is asked of the shadow host for a request that cannot be.
	p.answers.set(func(f *fakeHosts) { f.away = true })
	_, err = p.failover.ChangeRecoveryPoint(t.Context(), &umbrav1.ChangeRecoveryPointRequest{Name: "drPairs/a", RecoveryPoint: point(9)})
	wantError(t, err, codes.FailedPrecondition, "STATE_NOT_ALLOWED")
}

func TestAPairWithoutAPointCannotFailOver(t *testing.T) {
	p := startPlane(t)
	p.connectHosts()
	p.create("a", "vm")
	_, err := p.failover.Failover(t.Context(), &umbrav1.FailoverRequest{Name: "drPairs/a"})
	wantError(t, err, codes.FailedPrecondition, "NO_RECOVERY_POINT")
}

func TestAServerIsNotProtectedTwiceAndAnIDIsUsedOnce(t *testing.T) {
	p := startPlane(t)
	p.protect()
	for _, validateOnly := range []bool{false, true} {
		request := createRequest("b", "vm")
		request.ValidateOnly = validateOnly
		_, err := p.protection.CreateDRPair(t.Context(), request)
		if info := wantError(t, err, codes.AlreadyExists, "ALREADY_PROTECTED"); info.GetMetadata()["dr_pair"] != "drPairs/a" {
			t.Errorf("the error says %v", info)
		}
		taken := createRequest("a", "vm2")
		taken.ValidateOnly = validateOnly
		_, err = p.protection.CreateDRPair(t.Context(), taken)
		wantError(t, err, codes.AlreadyExists, "ALREADY_EXISTS")
	}
}

func TestAStaleETagIsAborted(t *testing.T) {
	p := startPlane(t)
	etag := p.protect().GetEtag()
	ctx := t.Context()
	if _, err := p.protection.PauseReplication(ctx, &umbrav1.PauseReplicationRequest{Name: "drPairs/a", Etag: etag}); err != nil {
		t.Fatalf("with the present etag: %v", err)
	}
	_, err := p.protection.ResumeReplication(ctx, &umbrav1.ResumeReplicationRequest{Name: "drPairs/a", Etag: etag})
	wantError(t, err, codes.Aborted, "ETAG_MISMATCH")
	_, err = p.failover.Failover(ctx, &umbrav1.FailoverRequest{Name: "drPairs/a", Etag: etag})
	wantError(t, err, codes.Aborted, "ETAG_MISMATCH")
	_, err = p.protection.UpdateDRPair(ctx, &umbrav1.UpdateDRPairRequest{DrPair: &umbrav1.DRPair{Name: "drPairs/a", Etag: etag}})
	wantError(t, err, codes.Aborted, "ETAG_MISMATCH")
	_, err = p.protection.DeleteDRPair(ctx, &umbrav1.DeleteDRPairRequest{Name: "drPairs/a", Etag: etag})
	wantError(t, err, codes.Aborted, "ETAG_MISMATCH")
}

func TestAServerWithoutDisksIsRefused(t *testing.T) {
	p := startPlane(t)
	p.connectHosts()
	_, err := p.protection.CreateDRPair(t.Context(), createRequest("a", "diskless"))
	wantError(t, err, codes.FailedPrecondition, "SERVER_NOT_PROTECTABLE")
}

func TestNoSpaceOnTheShadowPausesThePairWithItsReasonAndKeepsThePoints(t *testing.T) {
	p := startPlane(t)
	p.protect()
	p.reportMain("a", &umbrav1.MainReport{
		Phase: umbrav1.MainPhase_MAIN_PHASE_ERROR, ResyncGeneration: 1,
		Failure: &umbrav1.Failure{
			Code: int32(codes.ResourceExhausted), Reason: umbrav1.ErrorReason_ERROR_REASON_NO_SPACE,
			Side: umbrav1.Side_SIDE_SHADOW, Message: "The store is full.",
		},
	})
	pair := p.waitFor("a", umbrav1.DRPairState_DR_PAIR_STATE_REPLICATION_PAUSED)
	failure := pair.GetFailure()
	if failure.GetCode() != int32(codes.ResourceExhausted) || failure.GetReason() != umbrav1.ErrorReason_ERROR_REASON_NO_SPACE || failure.GetSide() != umbrav1.Side_SIDE_SHADOW {
		t.Errorf("the pair's failure is %v", failure)
	}
	if count := pair.GetReplication().GetRecoveryPointCount(); count != 3 {
		t.Errorf("the pair has %d points", count)
	}
}

func TestAPanicIsInternalAndLogged(t *testing.T) {
	p := startPlane(t)
	p.protect()
	p.answers.set(func(f *fakeHosts) { f.panics = true })
	_, err := p.failover.ListRecoveryPoints(t.Context(), &umbrav1.ListRecoveryPointsRequest{Parent: "drPairs/a"})
	wantError(t, err, codes.Internal, "INTERNAL")
	if !strings.Contains(p.log.String(), "level=ERROR") {
		t.Error("nothing was logged as an error")
	}
}
