package refusal

import (
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// StoreFull is the refusal of a call for which etcd has no space, and nil if that is not why it failed.
func StoreFull(err error) error {
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		return nil
	}
	return New(codes.ResourceExhausted, umbrav1.ErrorReason_ERROR_REASON_NO_SPACE, nil,
		"etcd has no space left, so nothing is changed; replication and running servers go on. A control plane with its own etcd makes "+
			"room when it is restarted. A cluster has to be compacted and defragmented, or be given a larger quota, and its alarm disarmed "+
			"(etcdctl compaction, defrag, alarm disarm)")
}
