package replica

import (
	"context"
	"errors"
	"fmt"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
	"github.com/umbra-dr/umbra/pkg/tracing"
	"github.com/umbra-dr/umbra/pkg/transport"
)

// NVRAMAttachment is the name under which a point holds the server's UEFI variables.
const NVRAMAttachment = "nvram"

// write runs f, which writes to the store, unless the stream's right to write has ended. Nobody ends it while f runs.
func (st *stream) write(ctx context.Context, f func() error) error {
	if err := st.p.gate.lock(ctx); err != nil {
		return err
	}
	defer st.p.gate.unlock()
	if st.p.current != st {
		return context.Cause(ctx)
	}
	err := f()
	if err == nil {
		return nil
	}
	if errors.Is(err, recoverystore.ErrClosed) {
		st.p.cut(err) // the store stopped: the next stream gets it opened anew
	}
	return st.p.refuse(err)
}

// beginJob says from which job the data that follows is. What an earlier, unfinished job of this stream wrote stays in
// the draft: it is part of what coverage speaks of.
func (st *stream) beginJob(ctx context.Context, job *umbrav1.BeginJob) error {
	if n := len(job.GetCheckpoint()); n > nameBytesMax {
		return protocolError("a job of a checkpoint whose name has %d bytes", n)
	}
	if job.GetCheckpoint() == "" || !job.GetPointTime().IsValid() {
		return protocolError("a job of checkpoint %q at %v", job.GetCheckpoint(), job.GetPointTime())
	}
	err := st.write(ctx, func() error {
		if st.p.draft != nil {
			return nil
		}
		draft, err := st.store.Begin()
		if err != nil {
			return fmt.Errorf("beginning a recovery point: %w", err)
		}
		st.p.draft = draft
		return nil
	})
	if err == nil {
		st.job = job
	}
	return err
}

func (st *stream) inJob() error {
	if st.job == nil {
		return protocolError("data or coverage outside of a job")
	}
	return nil
}

func (st *stream) clusters(ctx context.Context, c *transport.Clusters) error {
	d, err := st.find(c.Disk, c.First, uint64(len(c.Sums)))
	if err == nil {
		err = st.inJob()
	}
	if err != nil {
		return err
	}
	data, sums := c.Data, c.Sums
	if last := c.First + uint64(len(sums)) - 1; d.partial(last) {
		// The store knows the last cluster without the padding.
		data = data[:d.size-int64(c.First)*clusterBytes]
		sums[len(sums)-1] = transport.SumOf(data[(len(sums)-1)*clusterBytes:])
	}
	return st.write(ctx, func() error {
		if err := st.p.checkRoom(st.store, int64(len(c.Data))); err != nil {
			return err
		}
		if err := st.p.draft.WriteClusters(d.name, c.First, data, sums); err != nil {
			return fmt.Errorf("storing clusters: %w", err)
		}
		st.p.written.Add(int64(len(data)))
		return st.saveWhenMuch(ctx)
	})
}

func (st *stream) zeros(ctx context.Context, z *transport.Zeros) error {
	d, err := st.find(z.Disk, z.First, z.Count)
	if err == nil {
		err = st.inJob()
	}
	if err != nil {
		return err
	}
	return st.write(ctx, func() error {
		if err := st.p.draft.WriteZeros(d.name, z.First, z.Count); err != nil {
			return fmt.Errorf("storing zeros: %w", err)
		}
		return st.saveWhenMuch(ctx)
	})
}

// saveWhenMuch bounds the memory of a draft whose main side has long not spoken of coverage. The coverage that is stored stays
// true: what is written on top of it is as of a later checkpoint.
func (st *stream) saveWhenMuch(ctx context.Context) error {
	if st.p.draft.Pending() < recoverystore.PendingClustersAdvised {
		return nil
	}
	return st.p.draft.SaveProgress(context.WithoutCancel(ctx), st.store.Draft().Coverage)
}

func (st *stream) coverageReached(ctx context.Context, c *umbrav1.Coverage) error {
	cover, err := st.stored(c)
	if err == nil {
		err = st.inJob()
	}
	if err != nil {
		return err
	}
	err = st.write(ctx, func() error {
		// A connection that breaks now must not undo what is nearly durable.
		if err := st.p.draft.SaveProgress(context.WithoutCancel(ctx), cover); err != nil {
			return fmt.Errorf("storing coverage: %w", err)
		}
		st.p.clearFailure(anyFailure)
		return nil
	})
	if err != nil {
		return err
	}
	st.p.refresh()
	return st.ts.Send(&umbrav1.ShadowMessage{Message: &umbrav1.ShadowMessage_CoverageStored{
		CoverageStored: &umbrav1.CoverageStored{Coverage: c},
	}})
}

func (st *stream) completePoint(ctx context.Context) error {
	if err := st.inJob(); err != nil {
		return err
	}
	var point recoverystore.Point
	ctx, span := tracing.StartUnder(ctx, st.p.r.cfg.Tracer, st.job.GetTraceParent(), "store recovery point", tracing.About(st.p.name, st.epoch, ""))
	err := st.write(ctx, func() (err error) {
		point, err = st.p.draft.Complete(context.WithoutCancel(ctx), st.meta())
		if err != nil {
			return fmt.Errorf("completing a recovery point: %w", err)
		}
		st.p.draft = nil
		st.p.clearFailure(anyFailure)
		rec, _ := st.p.record()
		rec.Untrusted = false
		return st.p.save(rec)
	})
	span.SetAttributes(tracing.KeyPoint.String(string(point.ID)))
	tracing.End(span, err)
	if err != nil {
		return err
	}
	st.p.refresh()
	st.p.r.due.add(st.p)
	checkpoint := st.job.GetCheckpoint()
	st.job = nil
	return st.ts.Send(&umbrav1.ShadowMessage{Message: &umbrav1.ShadowMessage_PointStored{
		PointStored: &umbrav1.PointStored{RecoveryPoint: string(point.ID), Checkpoint: checkpoint},
	}})
}

// meta is what the point remembers of the job.
func (st *stream) meta() recoverystore.PointMeta {
	meta := recoverystore.PointMeta{
		Epoch: st.epoch, CreateTime: st.job.GetPointTime().AsTime(), Consistency: recoverystore.CrashConsistent,
		Checkpoint: st.job.GetCheckpoint(), ServerXML: st.job.GetServerXml(),
	}
	if st.job.GetConsistency() == umbrav1.Consistency_CONSISTENCY_APPLICATION {
		meta.Consistency = recoverystore.ApplicationConsistent
	}
	if nvram := st.job.GetNvram(); len(nvram) > 0 {
		meta.Attachments = map[string][]byte{NVRAMAttachment: nvram}
	}
	return meta
}
