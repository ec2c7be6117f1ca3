package replica

import (
	"context"
	"fmt"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// admits says why a stream with this hello may not write; nil means it may. peer is the caller's host.
func (r record) admits(hello *umbrav1.ReplicationHello, peer string, now time.Time) *umbrav1.Failure {
	switch epoch := hello.GetEpoch(); {
	case r.UID != hello.GetDrPairUid() && r.UID != "":
		return notYet(now, fmt.Sprintf("the stream is of the pair of uid %q, the shadow host keeps the one of uid %q", hello.GetDrPairUid(), r.UID))
	case epoch <= r.RefusedEpoch || epoch < r.Epoch:
		return epochOver(now, r)
	case epoch > r.Epoch || !r.Accept:
		return notYet(now, fmt.Sprintf("the stream is of epoch %d, the shadow host is in epoch %d", epoch, r.Epoch))
	case peer != r.MainHost:
		return wrongHost(now, peer, r.MainHost)
	case hello.GetResyncGeneration() != r.ResyncGeneration:
		return notYet(now, fmt.Sprintf("the stream is of restart %d, the shadow host knows of restart %d",
			hello.GetResyncGeneration(), r.ResyncGeneration))
	case r.ResyncPending:
		return notYet(now, "the shadow host has not finished preparing for replication from the beginning")
	default:
		return nil
	}
}

// admit makes the stream the pair's current one, ends the one before, and returns the answer to hello. The error is a
// *refusal when the main side is to be told.
func (p *pair) admit(ctx context.Context, st *stream, hello *umbrav1.ReplicationHello, peerHost func(context.Context) string) (*umbrav1.ReplicationWelcome, error) {
	if err := p.gate.lock(ctx); err != nil {
		return nil, err
	}
	defer p.gate.unlock()
	if p.r.isClosed() {
		return nil, ErrClosed
	}
	now := p.r.cfg.Clock.Now()
	rec, applied := p.record()
	if p.gone || !applied {
		return nil, &refusal{notHere(now, p.name)}
	}
	peer := rec.MainHost
	if peerHost != nil {
		peer = peerHost(ctx)
	}
	if f := rec.admits(hello, peer, now); f != nil {
		return nil, &refusal{f}
	}
	p.cut(errReplaced)
	store, err := p.openStore(ctx)
	if err == nil {
		err = store.EnsureDisks(ctx, specsOf(st.disks))
	}
	if err == nil {
		err = p.checkRoom(store, 0)
	}
	if err != nil {
		return nil, p.refuse(err)
	}
	p.current, st.store = st, store
	p.clearFailure(func(f *umbrav1.Failure) bool { return f.GetReason() != umbrav1.ErrorReason_ERROR_REASON_NO_SPACE })
	p.setReceiving(true)
	return &umbrav1.ReplicationWelcome{
		Coverage: st.coverage(), HasRecoveryPoint: len(store.Points()) > 0, TrustsChecksums: !rec.Untrusted,
	}, nil
}

// refuse notes that points cannot be stored, and returns the refusal that says so.
func (p *pair) refuse(err error) error {
	f := storeFailure(p.r.cfg.Clock.Now(), err)
	p.setFailure(f)
	if f.GetReason() == umbrav1.ErrorReason_ERROR_REASON_NO_SPACE {
		p.r.due.add(p) // the schedule may let go of points by now
	}
	p.log.Warn("points cannot be stored", "error", err)
	return &refusal{f}
}

// checkRoom says whether more bytes of data are within the policy's limit.
func (p *pair) checkRoom(store *recoverystore.Store, more int64) error {
	limit := p.retention().GetStoreBytesMax()
	if limit <= 0 {
		return nil
	}
	u, err := store.Usage()
	if err != nil {
		return fmt.Errorf("looking for space: %w", err)
	}
	if u.DataBytes+more > limit || u.DataBytes >= limit {
		return fmt.Errorf("%w: the store holds %d bytes, the policy's limit is %d", recoverystore.ErrNoSpace, u.DataBytes, limit)
	}
	return nil
}
