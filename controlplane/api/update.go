package api

import (
	"context"
	"errors"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/session"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// updateTriesMax is how often an update of single fields is made anew because the pair changed meanwhile.
const updateTriesMax = 8

const policyPath = "policy"

// UpdateDRPair changes the policy, or some fields of it.
func (s *protectionService) UpdateDRPair(ctx context.Context, request *umbrav1.UpdateDRPairRequest) (*umbrav1.UpdateDRPairResponse, error) {
	id, err := parseName("dr_pair.name", pairPrefix, request.GetDrPair().GetName())
	if err != nil {
		return nil, err
	}
	paths, err := policyPaths(request)
	if err != nil {
		return nil, err
	}
	if request.GetValidateOnly() {
		entry, event, err := s.policyUpdate(ctx, id, request.GetDrPair(), paths)
		if err != nil {
			return nil, err
		}
		change, err := drpair.Apply(entry.Record, event, s.Clock.Now())
		if err != nil {
			return nil, pairError(id, err)
		}
		return &umbrav1.UpdateDRPairResponse{DrPair: s.pair(change.Record)}, nil
	}
	pair, err := s.alter(ctx, request, func(key store.RequestKey) (*umbrav1.DRPair, error) {
		return s.update(ctx, id, request.GetDrPair(), paths, key)
	})
	if err != nil {
		return nil, err
	}
	return &umbrav1.UpdateDRPairResponse{DrPair: pair}, nil
}

// update stores the new policy. The fields that are not named keep their stored values, so the policy is made from a
// pair that was read and holds only if that has not changed; if it has, and the caller did not ask for a certain one,
// it is made anew.
func (s *protectionService) update(ctx context.Context, id string, asked *umbrav1.DRPair, paths []string, key store.RequestKey) (*umbrav1.DRPair, error) {
	for try := 1; ; try++ {
		entry, event, err := s.policyUpdate(ctx, id, asked, paths)
		if err != nil {
			return nil, err
		}
		record, err := s.Engine.Request(ctx, reconcile.Request{
			Pair: id, ETag: store.ETag(entry.Record.Pair), Key: key, Event: func(string) drpair.Event { return event },
		})
		if errors.Is(err, reconcile.ErrETag) && asked.GetEtag() == "" && try < updateTriesMax {
			continue
		}
		if err != nil {
			return nil, pairError(id, err)
		}
		return s.changed(record)
	}
}

// policyUpdate reads the pair and makes the event that gives it the new policy.
func (s *protectionService) policyUpdate(ctx context.Context, id string, asked *umbrav1.DRPair, paths []string) (store.Entry, drpair.Event, error) {
	entry, err := s.storedPair(ctx, id, asked.GetEtag())
	if err != nil {
		return store.Entry{}, nil, err
	}
	policy, err := updated(entry.Record.Pair.Policy, asked.GetPolicy(), paths)
	return entry, drpair.UpdatePolicy{Policy: policy}, err
}

// policyPaths are the paths of the update mask below "policy"; an empty path is the whole policy.
func policyPaths(request *umbrav1.UpdateDRPairRequest) ([]string, error) {
	masked := request.GetUpdateMask().GetPaths()
	if len(masked) == 0 {
		return []string{""}, nil
	}
	var paths []string
	for _, masked := range masked {
		path, ok := strings.CutPrefix(masked+".", policyPath+".")
		path = strings.TrimSuffix(path, ".")
		switch {
		case !ok:
			return nil, invalid("update_mask", "%q cannot be changed; only policy and its fields can", masked)
		case path != "" && !hasPath((&umbrav1.Policy{}).ProtoReflect().Descriptor(), path):
			return nil, invalid("update_mask", "there is no field %q", masked)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// hasPath tells whether the message has a field with that path.
func hasPath(message protoreflect.MessageDescriptor, path string) bool {
	name, rest, more := strings.Cut(path, ".")
	field := message.Fields().ByName(protoreflect.Name(name))
	switch {
	case field == nil:
		return false
	case !more:
		return true
	case field.IsList() || field.Message() == nil || strings.HasPrefix(string(field.Message().FullName()), "google."):
		return false
	default:
		return hasPath(field.Message(), rest)
	}
}

// updated is the stored policy with the named fields as the request has them. A field that is named and not set gets
// its default.
func updated(stored drpair.Policy, asked *umbrav1.Policy, paths []string) (drpair.Policy, error) {
	if asked == nil {
		asked = &umbrav1.Policy{}
	}
	policy := session.Policy(stored)
	for _, path := range paths {
		if path == "" {
			policy = proto.CloneOf(asked)
			continue
		}
		copyPath(policy.ProtoReflect(), asked.ProtoReflect(), path)
	}
	if err := validate(protovalidate.GlobalValidator, policy, policyField+"."); err != nil {
		return drpair.Policy{}, err
	}
	return policyFrom(policy)
}

func copyPath(to, from protoreflect.Message, path string) {
	name, rest, more := strings.Cut(path, ".")
	field := to.Descriptor().Fields().ByName(protoreflect.Name(name))
	switch {
	case more:
		copyPath(to.Mutable(field).Message(), from.Get(field).Message(), rest)
	case from.Has(field):
		to.Set(field, from.Get(field))
	default:
		to.Clear(field)
	}
}
