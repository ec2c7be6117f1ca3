package access

import (
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// Rule is what a method needs, and whether it changes something, which is then in the audit log.
type Rule struct {
	Needs   Permission
	Changes bool
}

// RuleOf is the table of all methods, by full name.
func RuleOf(method string) Rule {
	switch method {
	case umbrav1.FailoverService_ListDRPairs_FullMethodName,
		umbrav1.FailoverService_GetDRPair_FullMethodName,
		umbrav1.FailoverService_ListRecoveryPoints_FullMethodName,
		umbrav1.FailoverService_GetOperation_FullMethodName,
		umbrav1.FailoverService_ListOperations_FullMethodName,
		umbrav1.FailoverService_WatchDRPairs_FullMethodName,
		umbrav1.FailoverService_WatchOperation_FullMethodName,
		umbrav1.HostService_ListHosts_FullMethodName,
		umbrav1.HostService_GetHost_FullMethodName,
		reflection.ServerReflection_ServerReflectionInfo_FullMethodName,
		reflectionalpha.ServerReflection_ServerReflectionInfo_FullMethodName:
		return Rule{Needs: Read}
	case umbrav1.FailoverService_GetSupportBundle_FullMethodName:
		return Rule{Needs: Diagnose}
	case umbrav1.FailoverService_Failover_FullMethodName,
		umbrav1.FailoverService_ChangeRecoveryPoint_FullMethodName,
		umbrav1.FailoverService_CommitFailover_FullMethodName,
		umbrav1.FailoverService_RestartReplication_FullMethodName:
		return Rule{Needs: FailOver, Changes: true}
	case umbrav1.ProtectionService_CreateDRPair_FullMethodName,
		umbrav1.ProtectionService_UpdateDRPair_FullMethodName,
		umbrav1.ProtectionService_AdoptDRPair_FullMethodName,
		umbrav1.ProtectionService_PauseReplication_FullMethodName,
		umbrav1.ProtectionService_ResumeReplication_FullMethodName:
		return Rule{Needs: Protect, Changes: true}
	case umbrav1.ProtectionService_ListHeldPairs_FullMethodName:
		return Rule{Needs: Protect}
	case umbrav1.ProtectionService_DeleteDRPair_FullMethodName:
		return Rule{Needs: DeletePair, Changes: true}
	case umbrav1.IdentityService_CreateJoinToken_FullMethodName,
		umbrav1.IdentityService_RevokeHost_FullMethodName,
		umbrav1.IdentityService_IssueClientCertificate_FullMethodName,
		umbrav1.IdentityService_RevokeClient_FullMethodName:
		return Rule{Needs: Enrol, Changes: true}
	case umbrav1.IdentityService_Enroll_FullMethodName:
		return Rule{Needs: Joining, Changes: true}
	case umbrav1.IdentityService_RenewCertificate_FullMethodName,
		umbrav1.HostSessionService_Session_FullMethodName:
		return Rule{Needs: HostOnly}
	case umbrav1.PeerService_Observe_FullMethodName,
		umbrav1.PeerService_Ask_FullMethodName:
		return Rule{Needs: PlaneOnly}
	case umbrav1.BackupService_GetBackup_FullMethodName:
		return Rule{Needs: Local}
	case umbrav1.AuditService_ListAuditEvents_FullMethodName:
		return Rule{Needs: ReadAudit}
	case healthgrpc.Health_Check_FullMethodName,
		healthgrpc.Health_List_FullMethodName,
		healthgrpc.Health_Watch_FullMethodName:
		return Rule{Needs: Anyone} // for load balancers: it says only that the process serves
	default:
		return Rule{}
	}
}

// alsoNeeds is what a request needs beside what its method does; Anyone for nothing.
func alsoNeeds(request any) Permission {
	deleting, ok := request.(interface{ GetDeleteRecoveryPoints() bool })
	if ok && deleting.GetDeleteRecoveryPoints() {
		return DeletePoints
	}
	return Anyone
}
