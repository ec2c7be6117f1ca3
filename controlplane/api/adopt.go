package api

import (
	"context"
	"errors"
	"slices"
	"strings"

	"buf.build/go/protovalidate"
	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/refusal"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// hostsAsked is how many hosts are asked at once what they hold.
const hostsAsked = 16

// holding is what the hosts say of one pair: its shadow host, and its main host if that holds it too.
type holding struct {
	id, uid  string
	main     *umbrav1.Held
	mainHost string
	shadows  map[string]*umbrav1.Held // by host; more than one cannot be
}

func (s *protectionService) ListHeldPairs(ctx context.Context, _ *umbrav1.ListHeldPairsRequest) (*umbrav1.ListHeldPairsResponse, error) {
	found, silent := s.holdings(ctx)
	response := &umbrav1.ListHeldPairsResponse{SilentHosts: silent}
	for _, h := range found {
		shown := h.shown()
		if record, err := s.adopted(ctx, h); err == nil {
			shown.DrPair = s.pair(record)
		} else if shown.Blocker = blocker(err); shown.GetBlocker() == nil {
			return nil, err
		}
		response.HeldPairs = append(response.HeldPairs, shown)
	}
	return response, nil
}

func (s *protectionService) AdoptDRPair(ctx context.Context, request *umbrav1.AdoptDRPairRequest) (*umbrav1.AdoptDRPairResponse, error) {
	id, err := parseName("name", pairPrefix, request.GetName())
	if err != nil {
		return nil, err
	}
	pair, err := s.alter(ctx, request, func(key store.RequestKey) (*umbrav1.DRPair, error) {
		found, _ := s.holdings(ctx)
		found = slices.DeleteFunc(found, func(h holding) bool { return h.id != id || request.GetUid() != "" && h.uid != request.GetUid() })
		switch len(found) {
		case 0:
			return nil, notFound(typePair, request.GetName())
		case 1:
		default:
			return nil, invalid("uid", "is needed: several pairs of that name are held")
		}
		record, err := s.adopted(ctx, found[0])
		if err != nil {
			return nil, err
		}
		stored, err := s.Engine.Create(ctx, record, key)
		if err != nil {
			return nil, pairError(id, err)
		}
		return s.changed(stored)
	})
	if err != nil {
		return nil, err
	}
	return &umbrav1.AdoptDRPairResponse{DrPair: pair}, nil
}

// holdings asks all connected hosts, and leaves out what is recorded already. It is in the order of ids and uids.
func (s *protectionService) holdings(ctx context.Context) (found []holding, silent []string) {
	hosts := slices.DeleteFunc(s.Observed.List(), func(h observed.Host) bool { return !h.Connected })
	answers, errs := make([][]*umbrav1.Held, len(hosts)), make([]error, len(hosts))
	var group errgroup.Group
	group.SetLimit(hostsAsked)
	for i, host := range hosts {
		group.Go(func() error { answers[i], errs[i] = s.Hosts.Holdings(ctx, host.ID); return nil })
	}
	_ = group.Wait() // each host has its own error
	all := map[string]*holding{}
	for i, host := range hosts {
		if errs[i] != nil {
			s.Log.Warn("a host does not say what it holds", "host", host.ID, "error", errs[i])
			silent = append(silent, hostName(host.ID))
		}
		for _, held := range answers[i] {
			s.collect(all, host.ID, held)
		}
	}
	for _, h := range all {
		found = append(found, *h)
	}
	slices.SortFunc(found, func(a, b holding) int { return strings.Compare(a.id+"/"+a.uid, b.id+"/"+b.uid) })
	return found, silent
}

func (s *protectionService) collect(all map[string]*holding, host string, held *umbrav1.Held) {
	a := held.GetAssignment()
	if entry, recorded := s.Cache.Get(a.GetDrPair()); a.GetDrPairUid() == "" || recorded && entry.Record.Pair.UID == a.GetDrPairUid() {
		return
	}
	key := a.GetDrPair() + "/" + a.GetDrPairUid()
	if all[key] == nil {
		all[key] = &holding{id: a.GetDrPair(), uid: a.GetDrPairUid(), shadows: map[string]*umbrav1.Held{}}
	}
	if a.GetShadow() != nil {
		all[key].shadows[host] = held
	} else {
		all[key].main, all[key].mainHost = held, host
	}
}

// shown is what can be said of it whether it can be adopted or not.
func (h holding) shown() *umbrav1.HeldPair {
	shown := &umbrav1.HeldPair{DrPair: &umbrav1.DRPair{Name: pairName(h.id), Uid: h.uid}}
	for host, held := range h.shadows {
		shown.Hosts = append(shown.Hosts, hostName(host))
		shown.RecoveryPointCount = held.GetRecoveryPointCount()
		shown.DrPair.Shadow = &umbrav1.ShadowServer{Host: hostName(host), Server: held.GetAssignment().GetShadow().GetServer()}
	}
	if h.main != nil {
		shown.Hosts = append(shown.Hosts, hostName(h.mainHost))
		shown.DrPair.Main = &umbrav1.MainServer{Host: hostName(h.mainHost), Server: h.main.GetAssignment().GetMain().GetServer()}
	}
	slices.Sort(shown.Hosts)
	return shown
}

// adopted is the record of a pair that is held, or a refusal that says what stands in the way. What it was doing is not in it:
// its hosts say that once it is stored. A host can claim what it likes, so what both must agree on is held against the other.
func (s *protectionService) adopted(ctx context.Context, h holding) (drpair.Record, error) {
	if _, err := parseName("name", pairPrefix, pairName(h.id)); err != nil {
		return drpair.Record{}, err
	}
	shadowHost, held, err := h.shadow()
	if err != nil {
		return drpair.Record{}, err
	}
	shadow := held.GetAssignment().GetShadow()
	main := drpair.Main{Host: shadow.GetMainHost(), Server: held.GetProtectedServer(), UUID: held.GetProtectedServerUuid()}
	if h.main != nil {
		said := h.main.GetAssignment().GetMain()
		if h.mainHost != main.Host || said.GetShadowHost() != shadowHost {
			return drpair.Record{}, h.refusal("The hosts do not agree on who the main host and who the shadow host is.")
		}
		main.Server, main.UUID = said.GetServer(), said.GetServerUuid()
	}
	if main.Host == "" || main.Host == shadowHost || main.Server == "" || main.UUID == "" {
		return drpair.Record{}, h.refusal("It is not known which server is protected: the main host is not connected, and there is no recovery point that says so.")
	}
	if err := protovalidate.Validate(shadow.GetPolicy()); err != nil {
		return drpair.Record{}, h.refusal("The policy that the shadow host holds is not valid: " + err.Error())
	}
	policy, err := policyFrom(shadow.GetPolicy())
	if err != nil {
		return drpair.Record{}, h.refusal("The policy that the shadow host holds is not valid: " + err.Error())
	}
	switch entry, err := s.Store.Pair(ctx, h.id); {
	case err == nil && entry.Record.Pair.UID != h.uid:
		return drpair.Record{}, pairError(h.id, &store.ExistsError{Pair: h.id})
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return drpair.Record{}, pairError(h.id, err)
	}
	record := drpair.New(h.id, h.uid, main, drpair.Shadow{Host: shadowHost, Server: shadow.GetServer()}, policy, s.Clock.Now())
	record.Pair.Restored = true
	return record, nil
}

// shadow is the shadow host and what it holds.
func (h holding) shadow() (string, *umbrav1.Held, error) {
	switch len(h.shadows) {
	case 0:
		return "", nil, refusal.New(codes.Unavailable, umbrav1.ErrorReason_ERROR_REASON_SHADOW_HOST_UNREACHABLE, refusal.Metadata{"pair": pairName(h.id)},
			"Its shadow host, "+hostName(h.main.GetAssignment().GetMain().GetShadowHost())+", is not connected or does not hold it.")
	case 1:
		for host, held := range h.shadows {
			return host, held, nil
		}
	}
	return "", nil, h.refusal("More than one host holds the shadow of this pair.")
}

func (h holding) refusal(message string) error {
	return precondition(umbrav1.ErrorReason_ERROR_REASON_STATE_NOT_ALLOWED, pairName(h.id), refusal.Metadata{"pair": pairName(h.id)}, message)
}

// blocker is a refusal as a failure that is shown; nil for an error that is none.
func blocker(err error) *umbrav1.Failure {
	refused := status.Convert(err)
	switch refused.Code() {
	case codes.FailedPrecondition, codes.Unavailable, codes.AlreadyExists, codes.InvalidArgument:
	default:
		return nil
	}
	failure := &umbrav1.Failure{Code: int32(refused.Code()), Message: refused.Message(), Side: umbrav1.Side_SIDE_CONTROL_PLANE} //nolint:gosec // a code is small
	for _, detail := range refused.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			failure.Reason = umbrav1.ErrorReason(umbrav1.ErrorReason_value[reasonPrefix+info.GetReason()])
		}
	}
	return failure
}
