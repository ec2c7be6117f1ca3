package replica

import (
	"context"
	"fmt"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
	"github.com/umbra-dr/umbra/pkg/transport"
)

// sumsPerPart is how many checksums one message holds: 64 KiB of them, for 256 MiB of disk.
const sumsPerPart = 4096

// checksums answers a request in parts. A last cluster that the disk fills in part counts as different from everything unless
// it is zero: the store's checksum is without the padding, the stream's with it.
func (st *stream) checksums(ctx context.Context, req *umbrav1.ChecksumsRequest) error {
	d, err := st.find(req.GetDisk(), req.GetFirstCluster(), req.GetClusters())
	if err != nil {
		return err
	}
	source := recoverystore.FromIndex
	if rec, _ := st.p.record(); rec.Untrusted {
		source = recoverystore.FromData
	}
	first, left := req.GetFirstCluster(), req.GetClusters()
	sums := make([]recoverystore.Checksum, min(left, sumsPerPart))
	for left > 0 {
		part := sums[:min(left, sumsPerPart)]
		if err := st.store.Checksums(ctx, d.name, first, part, source); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return st.p.refuse(fmt.Errorf("reading checksums: %w", err))
		}
		err := st.ts.Send(&umbrav1.ShadowMessage{Message: &umbrav1.ShadowMessage_ChecksumsPart{
			ChecksumsPart: &umbrav1.ChecksumsPart{Disk: req.GetDisk(), FirstCluster: first, Checksums: encodeSums(d, first, part)},
		}})
		if err != nil {
			return err
		}
		first, left = first+uint64(len(part)), left-uint64(len(part))
	}
	return nil
}

func encodeSums(d disk, first uint64, sums []recoverystore.Checksum) []byte {
	out := make([]byte, 0, len(sums)*16)
	for i, sum := range sums {
		var b [16]byte // stays zero for what is equal to nothing
		switch {
		case sum.State == recoverystore.ChecksumZero:
			b = transport.ZeroSum().Bytes()
		case sum.State == recoverystore.ChecksumData && !d.partial(first+uint64(i)):
			b = sum.Sum.Bytes()
		}
		out = append(out, b[:]...)
	}
	return out
}
