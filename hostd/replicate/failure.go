package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/brief"
)

// failureTextsMax bounds the lists of a failure.
const failureTextsMax = 16

// Reasons of this package that decide how it goes on. All of them are tried again.
var (
	// errServerOff: there is nothing to replicate until the server runs.
	errServerOff = errors.New("the server is not running; what it wrote after its newest recovery point is sent when it runs again")
	// errDisksDiffer: the disks are not those of the stream any more, so a new stream is needed.
	errDisksDiffer = errors.New("the disks of the server have changed")
	// errNoDisks: the server has no disk that can be replicated.
	errNoDisks = errors.New("the server has no disk that can be replicated")
	// errScratchLimit: the job was ended because its scratch files had grown to the limit.
	errScratchLimit = errors.New("the scratch files of the backup job have reached their limit")
	// errScratchSpace: a job was ended, or not begun, because the file system of its scratch files has too little room.
	errScratchSpace = errors.New("the file system of the scratch files of backup jobs has too little room")
	// errStalled: nothing moved for stallMax.
	errStalled = errors.New("the replication stream stands still")
	// errNotConfirmed: what must be done may only be done after the control plane has confirmed the role.
	errNotConfirmed = errors.New("the control plane has not confirmed the role since this host's daemon started")
)

// streamError is a failure of the connection to the shadow host.
type streamError struct{ err error }

func (e *streamError) Error() string { return fmt.Sprintf("replication stream: %v", e.err) }
func (e *streamError) Unwrap() error { return e.err }

// refusedError is what the shadow host gave as its reason to end the stream.
type refusedError struct{ failure *umbrav1.Failure }

func (e *refusedError) Error() string {
	return fmt.Sprintf("the shadow host ended the stream: %s", e.failure.GetMessage())
}

// sourceError is a disk of the main server that could not be read.
type sourceError struct {
	disk string
	err  error
}

func (e *sourceError) Error() string { return fmt.Sprintf("reading disk %s: %v", e.disk, e.err) }
func (e *sourceError) Unwrap() error { return e.err }

// advice is what a person is told about a kind of error.
type advice struct {
	err     error
	reason  umbrav1.ErrorReason
	code    codes.Code
	side    umbrav1.Side
	causes  []string
	actions []string
}

// advices are tried in order; the first whose error is in the chain is taken.
var advices = []advice{
	{
		errServerOff, umbrav1.ErrorReason_ERROR_REASON_SERVER_NOT_RUNNING, codes.FailedPrecondition, umbrav1.Side_SIDE_MAIN,
		[]string{"The server was shut down."},
		[]string{"Start the server: replication goes on by itself, from the tracked changes."},
	},
	{
		hypervisor.ErrNotRunning, umbrav1.ErrorReason_ERROR_REASON_SERVER_NOT_RUNNING, codes.FailedPrecondition, umbrav1.Side_SIDE_MAIN,
		[]string{"The server was shut down while a recovery point was being made."},
		[]string{"Start the server: replication goes on by itself."},
	},
	{
		errNotConfirmed, umbrav1.ErrorReason_ERROR_REASON_SERVER_NOT_RUNNING, codes.FailedPrecondition, umbrav1.Side_SIDE_MAIN,
		[]string{"The host or its daemon restarted and has no connection to the control plane yet."},
		[]string{"Restore the connection to the control plane; the server is started after that."},
	},
	{
		hypervisor.ErrNotFound, umbrav1.ErrorReason_ERROR_REASON_SERVER_MISSING, codes.NotFound, umbrav1.Side_SIDE_MAIN,
		[]string{"The server was undefined, renamed, migrated away, or replaced by another one of the same name."},
		[]string{"Define the server again with its name and UUID.", "Fail over to the shadow server.", "Delete the DR pair."},
	},
	{
		hypervisor.ErrBackupBusy, umbrav1.ErrorReason_ERROR_REASON_BACKUP_BUSY, codes.FailedPrecondition, umbrav1.Side_SIDE_MAIN,
		[]string{"Another backup tool is at work on the server."},
		[]string{"Wait for the other backup to end: replication goes on by itself."},
	},
	{
		hypervisor.ErrJobLost, umbrav1.ErrorReason_ERROR_REASON_HYPERVISOR, codes.FailedPrecondition, umbrav1.Side_SIDE_MAIN,
		[]string{"The libvirt daemon of the main host was killed, or crashed, as it began a backup job."},
		[]string{
			"Power the server off and on, whenever that suits: replication goes on by itself.",
			"Or, while the server runs: stop libvirtd, remove async='backup' from /run/libvirt/qemu/SERVER.xml, and start libvirtd.",
			"Meanwhile the recovery points that exist can be failed over to.",
		},
	},
	{
		hypervisor.ErrUnavailable, umbrav1.ErrorReason_ERROR_REASON_HYPERVISOR, codes.Unavailable, umbrav1.Side_SIDE_MAIN,
		[]string{"The libvirt daemon of the main host is stopped or does not answer."},
		[]string{"Check the libvirt daemon on the main host."},
	},
	{
		errNoDisks, umbrav1.ErrorReason_ERROR_REASON_DISKS_CHANGED, codes.FailedPrecondition, umbrav1.Side_SIDE_MAIN,
		[]string{"All disks of the server are read-only or shared."},
		[]string{"Attach a disk that is neither read-only nor shared.", "Delete the DR pair."},
	},
	{
		errScratchLimit, umbrav1.ErrorReason_ERROR_REASON_NO_SPACE, codes.ResourceExhausted, umbrav1.Side_SIDE_MAIN,
		[]string{"The server overwrites its disks faster than they can be sent to the shadow host."},
		[]string{"Raise the pair's bandwidth limit or the scratch space per pair of the main host.", "Wait until the server writes less."},
	},
	{
		errScratchSpace, umbrav1.ErrorReason_ERROR_REASON_NO_SPACE, codes.ResourceExhausted, umbrav1.Side_SIDE_MAIN,
		[]string{"The file system of hostd's --run-dir on the main host is nearly full, or too small."},
		[]string{"Make room there, or have --run-dir on a larger file system: replication goes on by itself."},
	},
	{
		errStalled, umbrav1.ErrorReason_ERROR_REASON_DEADLINE, codes.DeadlineExceeded, umbrav1.Side_SIDE_SHADOW,
		[]string{"The network between the hosts loses data.", "The storage of the shadow host or of the main host hangs."},
		[]string{"Check the network and the storage of both hosts."},
	},
	{
		context.DeadlineExceeded, umbrav1.ErrorReason_ERROR_REASON_DEADLINE, codes.DeadlineExceeded, umbrav1.Side_SIDE_MAIN,
		[]string{"The hypervisor, the network or the storage is slow or hangs."},
		[]string{"Check the load of both hosts and the network between them."},
	},
}

// failureOf tells a person about err. A refusal is passed on in the words of the shadow host.
func failureOf(err error, now time.Time) *umbrav1.Failure {
	var refused *refusedError
	if errors.As(err, &refused) && refused.failure != nil {
		return bounded(failureOfRefusal(refused.failure, now))
	}
	f := &umbrav1.Failure{
		Code: int32(codes.Internal), Reason: umbrav1.ErrorReason_ERROR_REASON_INTERNAL, Side: umbrav1.Side_SIDE_MAIN,
		RecommendedActions: []string{"Contact support with a support bundle, if it does not pass by itself."},
	}
	var (
		source  *sourceError
		stream  *streamError
		matched bool
	)
	for _, a := range advices {
		if errors.Is(err, a.err) {
			f.Code, f.Reason, f.Side = int32(a.code), a.reason, a.side
			f.PossibleCauses, f.RecommendedActions = a.causes, a.actions
			matched = true
			break
		}
	}
	switch {
	case errors.As(err, &source):
		f.Code, f.Reason = int32(codes.DataLoss), umbrav1.ErrorReason_ERROR_REASON_HYPERVISOR
		f.PossibleCauses = []string{"The server was stopped during the backup job.", "The storage of the main host has an error."}
		f.RecommendedActions = []string{"Check the storage of the main host."}
	case !matched && errors.As(err, &stream):
		f.Code, f.Reason, f.Side = int32(codes.Unavailable), umbrav1.ErrorReason_ERROR_REASON_SHADOW_HOST_UNREACHABLE, umbrav1.Side_SIDE_SHADOW
		f.PossibleCauses = []string{"The shadow host or its daemon is down.", "The network between the hosts is down."}
		f.RecommendedActions = []string{"Check the shadow host and the network to it: replication goes on by itself."}
	}
	f.Message, f.Retryable, f.OccurTime = err.Error(), true, timestamppb.New(now)
	return bounded(f)
}

// bounded bounds the failure's texts: some are the shadow host's, and they go into every report.
func bounded(f *umbrav1.Failure) *umbrav1.Failure {
	f.Message = brief.Text(f.Message)
	for _, texts := range []*[]string{&f.PossibleCauses, &f.RecommendedActions} {
		*texts = slices.Clone((*texts)[:min(len(*texts), failureTextsMax)])
		for i := range *texts {
			(*texts)[i] = brief.Text((*texts)[i])
		}
	}
	return f
}

func failureOfRefusal(refusal *umbrav1.Failure, now time.Time) *umbrav1.Failure {
	f := proto.CloneOf(refusal)
	if f.Side == umbrav1.Side_SIDE_UNSPECIFIED {
		f.Side = umbrav1.Side_SIDE_SHADOW
	}
	if f.OccurTime == nil {
		f.OccurTime = timestamppb.New(now)
	}
	if f.Reason == umbrav1.ErrorReason_ERROR_REASON_DISKS_CHANGED && len(f.RecommendedActions) == 0 {
		f.RecommendedActions = []string{"Restart Replication, which begins with the disks as they are now."}
	}
	return f
}
