package api

import (
	"google.golang.org/grpc/codes"

	"github.com/umbra-dr/umbra/controlplane/access"
	"github.com/umbra-dr/umbra/controlplane/refusal"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

type backupService struct {
	umbrav1.UnimplementedBackupServiceServer
	Deps
}

// GetBackup sends the control plane's state. Only who is on its machine may have it: package access sees to that.
func (s *backupService) GetBackup(_ *umbrav1.GetBackupRequest, stream umbrav1.BackupService_GetBackupServer) error {
	ctx := stream.Context()
	if s.Backup == nil {
		return refusal.New(codes.Unimplemented, umbrav1.ErrorReason_ERROR_REASON_INTERNAL, nil, "this control plane has nothing to save")
	}
	s.Log.Info("the state is saved", "caller", access.From(ctx).Name)
	to := &chunkWriter{send: func(chunk []byte) error { return stream.Send(&umbrav1.GetBackupResponse{Chunk: chunk}) }}
	if err := s.Backup(ctx, to); err != nil {
		return err
	}
	return to.flush()
}
