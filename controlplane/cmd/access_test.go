package main

import (
	"context"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/umbra-dr/umbra/controlplane/access"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/identity"
)

// The callers of the table, from the least to the most.
var callers = []string{"nobody", "host", "control plane", "viewer", "operator", "administrator", "local"}

// Who may call what, said once more and in other words than in package access. "people" may look.
var allowed = map[string][]string{
	"anyone":         callers,
	"hosts":          {"host"},
	"control planes": {"control plane"},
	"join tokens":    nil, // which none of these callers shows
	"people":         {"viewer", "operator", "administrator", "local"},
	"operators":      {"operator", "administrator", "local"},
	"administrators": {"administrator", "local"},
	"the socket":     {"local"},
}

var whoMayCall = map[string]string{
	"umbra.v1.FailoverService/ListDRPairs":                          "people",
	"umbra.v1.FailoverService/GetDRPair":                            "people",
	"umbra.v1.FailoverService/ListRecoveryPoints":                   "people",
	"umbra.v1.FailoverService/GetOperation":                         "people",
	"umbra.v1.FailoverService/ListOperations":                       "people",
	"umbra.v1.FailoverService/WatchDRPairs":                         "people",
	"umbra.v1.FailoverService/WatchOperation":                       "people",
	"umbra.v1.FailoverService/GetSupportBundle":                     "operators",
	"umbra.v1.FailoverService/Failover":                             "operators",
	"umbra.v1.FailoverService/ChangeRecoveryPoint":                  "operators",
	"umbra.v1.FailoverService/CommitFailover":                       "operators",
	"umbra.v1.FailoverService/RestartReplication":                   "operators",
	"umbra.v1.ProtectionService/CreateDRPair":                       "administrators",
	"umbra.v1.ProtectionService/UpdateDRPair":                       "administrators",
	"umbra.v1.ProtectionService/DeleteDRPair":                       "administrators",
	"umbra.v1.ProtectionService/ListHeldPairs":                      "administrators",
	"umbra.v1.ProtectionService/AdoptDRPair":                        "administrators",
	"umbra.v1.ProtectionService/PauseReplication":                   "administrators",
	"umbra.v1.ProtectionService/ResumeReplication":                  "administrators",
	"umbra.v1.HostService/ListHosts":                                "people",
	"umbra.v1.HostService/GetHost":                                  "people",
	"umbra.v1.HostSessionService/Session":                           "hosts",
	"umbra.v1.IdentityService/CreateJoinToken":                      "administrators",
	"umbra.v1.IdentityService/Enroll":                               "join tokens",
	"umbra.v1.IdentityService/RenewCertificate":                     "hosts",
	"umbra.v1.IdentityService/RevokeHost":                           "administrators",
	"umbra.v1.IdentityService/IssueClientCertificate":               "administrators",
	"umbra.v1.IdentityService/RevokeClient":                         "administrators",
	"umbra.v1.PeerService/Observe":                                  "control planes",
	"umbra.v1.PeerService/Ask":                                      "control planes",
	"umbra.v1.AuditService/ListAuditEvents":                         "administrators",
	"umbra.v1.BackupService/GetBackup":                              "the socket",
	"grpc.health.v1.Health/Check":                                   "anyone",
	"grpc.health.v1.Health/List":                                    "anyone",
	"grpc.health.v1.Health/Watch":                                   "anyone",
	"grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      "people",
	"grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": "people",
}

// everyMethod is every method of ours and of the services beside them that this program knows of.
func everyMethod() []protoreflect.MethodDescriptor {
	var methods []protoreflect.MethodDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		pkg := string(file.Package())
		if !strings.HasPrefix(pkg, "umbra.") && !strings.HasPrefix(pkg, "grpc.health.") && !strings.HasPrefix(pkg, "grpc.reflection.") {
			return true
		}
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				methods = append(methods, service.Methods().Get(j))
			}
		}
		return true
	})
	return methods
}

func TestEveryMethodIsRefusedToEveryoneWhoMayNotCallIt(t *testing.T) {
	s := newSite(t)
	conns := map[string]*grpc.ClientConn{
		"nobody": s.asNobody(t), "host": s.as(t, identity.Host("a")), "control plane": s.as(t, identity.ControlPlane()), "local": s.local(t), "viewer": s.asRole(t, access.Viewer),
		"operator": s.asRole(t, access.Operator), "administrator": s.asRole(t, access.Administrator),
	}
	methods := everyMethod()
	if len(methods) < len(whoMayCall) {
		t.Errorf("%d methods were found; the table has %d", len(methods), len(whoMayCall))
	}
	for _, method := range methods {
		name := string(method.Parent().FullName()) + "/" + string(method.Name())
		who, known := whoMayCall[name]
		if !known || access.RuleOf("/"+name).Needs == access.Nothing {
			t.Errorf("%s is new: say in access.RuleOf, and in this test, who may call it", name)
			continue
		}
		for _, caller := range callers {
			if caller == "local" && (strings.Contains(name, "HostSession") || strings.Contains(name, "PeerService")) {
				continue // not offered there
			}
			err := callEmpty(soon(t), conns[caller], method)
			refused := slices.Contains([]string{"PERMISSION_DENIED", "UNAUTHENTICATED", "JOIN_TOKEN_INVALID"}, reasonOf(err))
			if refused == slices.Contains(allowed[who], caller) {
				t.Errorf("%s called by %s, for %s: %v", name, caller, who, err)
			}
			if refused && caller == "nobody" && who != "join tokens" && status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s called by nobody: %v", name, err)
			}
		}
	}
}

// callEmpty calls a method with an empty request, and returns what the first answer is.
func callEmpty(ctx context.Context, conn *grpc.ClientConn, method protoreflect.MethodDescriptor) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	name := "/" + string(method.Parent().FullName()) + "/" + string(method.Name())
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(dynamicpb.NewMessage(method.Input())); err != nil {
		return stream.RecvMsg(dynamicpb.NewMessage(method.Output())) // which tells why
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(dynamicpb.NewMessage(method.Output()))
}

func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func TestDeletingRecoveryPointsNeedsAPermissionOfItsOwn(t *testing.T) {
	s := newSite(t)
	operator, administrator := s.asRole(t, access.Operator), s.asRole(t, access.Administrator)
	for name, call := range map[string]func(conn *grpc.ClientConn, deleting bool) error{
		"CommitFailover": func(conn *grpc.ClientConn, deleting bool) error {
			_, err := umbrav1.NewFailoverServiceClient(conn).CommitFailover(soon(t), &umbrav1.CommitFailoverRequest{Name: "drPairs/p", DeleteRecoveryPoints: deleting})
			return err
		},
		"RestartReplication": func(conn *grpc.ClientConn, deleting bool) error {
			_, err := umbrav1.NewFailoverServiceClient(conn).RestartReplication(soon(t), &umbrav1.RestartReplicationRequest{Name: "drPairs/p", DeleteRecoveryPoints: deleting})
			return err
		},
	} {
		if err := call(operator, false); status.Code(err) != codes.NotFound {
			t.Errorf("%s by an operator: %v", name, err)
		}
		if err := call(operator, true); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s that deletes, by an operator: %v", name, err)
		}
		if err := call(administrator, true); status.Code(err) != codes.NotFound {
			t.Errorf("%s that deletes, by an administrator: %v", name, err)
		}
	}
}
