// Package api is the gRPC edge of the control plane: FailoverService, ProtectionService, HostService, IdentityService,
// AuditService and BackupService. Who may call what is decided before, in package access. It checks requests, translates between the API's messages and the types of package drpair, and turns errors into statuses.
// It decides nothing about pairs: what a state allows is asked of drpair, and what is stored is stored by the engine
// of package reconcile.
//
// It promises that every error is a status with google.rpc details, ErrorInfo first (domain "umbra", the reason a
// name of ErrorReason without its prefix); that no request, however malformed, ends in a panic or in UNKNOWN; and
// that INTERNAL is only ever a defect of ours, and is logged as an error.
package api

import (
	"context"
	"io"
	"iter"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/enrolment"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/feed"
	"github.com/umbra-dr/umbra/pkg/identity"
)

// Store reads records. *store.Store is one.
type Store interface {
	Pair(ctx context.Context, id string) (store.Entry, error)
	Request(ctx context.Context, key store.RequestKey) (store.RequestRecord, bool, error)
	Operation(ctx context.Context, id string) (drpair.Operation, error)
	Operations(ctx context.Context, pair string, pageSize int, token string) ([]drpair.Operation, string, error)
	ChangesSince(ctx context.Context, revision int64) (store.Changes, error)
	History(ctx context.Context) (string, error)
	AuditEvents(ctx context.Context, pageSize int, token string) ([]store.AuditEvent, string, error)
}

// Office makes certificates and takes them back. *enrolment.Office is one.
type Office interface {
	JoinToken(ctx context.Context, host string, ttl time.Duration) (identity.Token, time.Time, error)
	Enroll(ctx context.Context, token string, request []byte) (host string, made enrolment.Certificate, err error)
	Renew(host string, generation uint64, request []byte) (enrolment.Certificate, error)
	Client(ctx context.Context, role, name string, request []byte, ttl time.Duration) (enrolment.Certificate, error)
	Revoke(ctx context.Context, subject string) error
}

// Cache is the picture of the store in memory. *store.Cache is one.
type Cache interface {
	Ready() <-chan struct{}
	Revision() int64
	Reach(ctx context.Context, revision int64) error
	Get(id string) (store.Entry, bool)
	After(id string) iter.Seq[store.Entry]
	ByHost(host string) []store.Entry
	Removed(id string) (uid string, ok bool)
	Feed() *feed.Feed[string]
}

// Engine carries out requests on pairs. *reconcile.Engine is one.
type Engine interface {
	Request(ctx context.Context, request reconcile.Request) (drpair.Record, error)
	Create(ctx context.Context, record drpair.Record, key store.RequestKey) (drpair.Record, error)
}

// Observed is what the hosts last reported. *observed.Hosts is one.
type Observed interface {
	Host(id string) (observed.Host, bool)
	List() []observed.Host
	Main(pair string) (observed.Main, bool)
	Shadow(pair string) (observed.Shadow, bool)
	Pairs() *feed.Feed[string]
}

// Hosts asks hosts through their sessions. *session.Server is one.
type Hosts interface {
	RecoveryPoints(ctx context.Context, host, pair string) ([]*umbrav1.RecoveryPoint, error)
	Diagnostics(ctx context.Context, host, pair string) ([]*umbrav1.DiagnosticsFile, error)
	// Holdings is what the host holds, of all pairs.
	Holdings(ctx context.Context, host string) ([]*umbrav1.Held, error)
	// Refresh has Observed know what the host has now.
	Refresh(ctx context.Context, host string) error
}

// Deps is what the services work with. All but Backup are required.
type Deps struct {
	Store    Store
	Cache    Cache
	Engine   Engine
	Observed Observed
	Hosts    Hosts
	Clock    clock.Clock
	Log      *slog.Logger
	Office   Office
	// Backup writes the control plane's state. Nil where it cannot be saved.
	Backup func(ctx context.Context, to io.Writer) error
}

// Register adds the services to a server, which must have been made with Interceptors.
func Register(registrar grpc.ServiceRegistrar, deps Deps) {
	umbrav1.RegisterFailoverServiceServer(registrar, &failoverService{Deps: deps})
	umbrav1.RegisterProtectionServiceServer(registrar, &protectionService{Deps: deps})
	umbrav1.RegisterHostServiceServer(registrar, &hostService{Deps: deps})
	umbrav1.RegisterIdentityServiceServer(registrar, &identityService{Deps: deps})
	umbrav1.RegisterAuditServiceServer(registrar, &auditService{Deps: deps})
	umbrav1.RegisterBackupServiceServer(registrar, &backupService{Deps: deps})
}
