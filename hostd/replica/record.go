package replica

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

// Spec is what should be for a pair. It may be applied any number of times.
type Spec struct {
	// Pair is the pair's id.
	Pair string
	// UID is the pair's: a pair that was removed and made again under its id has another one.
	UID string
	// Generation and Epoch are those of the assignment.
	Generation, Epoch uint64
	// Accept says whether streams of the epoch are accepted. If not, they are refused for good.
	Accept bool
	// MainHost is the only host that streams are accepted from.
	MainHost string
	// Policy has the retention. Nil means the defaults.
	Policy *umbrav1.Policy
	// ResyncGeneration rises with every Restart Replication.
	ResyncGeneration uint64
	// DeletePointsOnResync: when ResyncGeneration rises, the points that exist are deleted.
	DeletePointsOnResync bool
	// Operation and TraceID are for the log.
	Operation, TraceID string
}

// check refuses ids that are no plain name of a folder.
func (s Spec) check() error {
	if s.Pair == "" || strings.HasPrefix(s.Pair, ".") || s.Pair != filepath.Base(s.Pair) || strings.ContainsRune(s.Pair, 0) {
		return fmt.Errorf("%q cannot be a pair's id", s.Pair)
	}
	return nil
}

// subject is what the log says is in hand while the spec is followed.
func (s Spec) subject() *telemetry.Subject {
	return &telemetry.Subject{Epoch: s.Epoch, Operation: s.Operation, TraceID: s.TraceID}
}

// record is what the journal holds of a pair.
type record struct {
	UID              string `json:"uid,omitempty"`
	Generation       uint64 `json:"generation"`
	Epoch            uint64 `json:"epoch"`
	Accept           bool   `json:"accept"`
	MainHost         string `json:"main_host"`
	RefusedEpoch     uint64 `json:"refused_epoch"`
	ResyncGeneration uint64 `json:"resync_generation"`
	// ResyncPending: the resync of ResyncGeneration was begun, and is to be repeated until it is done.
	ResyncPending bool `json:"resync_pending,omitempty"`
	// DeletePoints belongs to ResyncPending.
	DeletePoints bool `json:"delete_points,omitempty"`
	// Untrusted: since a resync no point was completed, so stored checksums prove nothing.
	Untrusted bool `json:"untrusted,omitempty"`
}

// follow returns the record after the spec. Errors: ErrOtherPair, ErrStale, ErrRefusedEpoch. fresh says that there was none.
func (r record) follow(s Spec, fresh bool) (record, error) {
	if journal.OtherPair(r.UID, s.UID) {
		return r, fmt.Errorf("pair %s of uid %s: %w, of uid %s", s.Pair, s.UID, ErrOtherPair, r.UID)
	}
	if s.Epoch < r.Epoch || s.Generation < r.Generation {
		return r, fmt.Errorf("pair %s, generation %d, epoch %d: %w: generation %d, epoch %d",
			s.Pair, s.Generation, s.Epoch, ErrStale, r.Generation, r.Epoch)
	}
	if s.Accept && s.Epoch <= r.RefusedEpoch {
		return r, fmt.Errorf("pair %s, epoch %d: %w, up to %d", s.Pair, s.Epoch, ErrRefusedEpoch, r.RefusedEpoch)
	}
	next := r
	next.UID = cmp.Or(s.UID, r.UID)
	next.Generation, next.Epoch, next.Accept, next.MainHost = s.Generation, s.Epoch, s.Accept, s.MainHost
	refused := s.Epoch
	if s.Accept {
		refused-- // not 0 here: 0 is refused from the start
	}
	next.RefusedEpoch = max(r.RefusedEpoch, refused)
	if s.ResyncGeneration > r.ResyncGeneration {
		next.ResyncGeneration, next.ResyncPending, next.Untrusted = s.ResyncGeneration, true, true
		// Without a record the restart may be an old one that was carried out before the journal was lost.
		next.DeletePoints = r.DeletePoints || s.DeletePointsOnResync && !fresh
	}
	return next, nil
}

// sameStream says whether a stream admitted under r may go on under next.
func (r record) sameStream(next record) bool {
	return next.Accept && next.Epoch == r.Epoch && next.MainHost == r.MainHost && next.ResyncGeneration == r.ResyncGeneration
}
