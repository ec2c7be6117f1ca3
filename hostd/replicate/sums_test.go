package replicate

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"pgregory.net/rapid"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestChecksumsAreTakenInTheOrderInWhichTheyWereAskedForHoweverTheyArrive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := &sumQueue{news: make(chan struct{}, 1)}
		var want, got []byte
		windows := rapid.IntRange(1, 5).Draw(t, "windows")
		for disk := range uint32(windows) {
			from := rapid.Uint64Range(0, 1000).Draw(t, "from")
			w := window{disk, span{from, from + rapid.Uint64Range(1, 50).Draw(t, "clusters")}}
			q.expect(w)
			for at := w.from; at < w.to; {
				n := rapid.Uint64Range(1, w.to-at).Draw(t, "part")
				sums := rapid.SliceOfN(rapid.Byte(), int(n*sumBytes), int(n*sumBytes)).Draw(t, "sums")
				want = append(want, sums...)
				if err := q.deliver(&umbrav1.ChecksumsPart{Disk: disk, FirstCluster: at, Checksums: sums}); err != nil {
					t.Fatal(err)
				}
				at += n
			}
		}
		for len(got) < len(want) {
			n := rapid.Uint64Range(1, uint64(len(want)-len(got))/sumBytes).Draw(t, "take")
			out := make([]byte, n*sumBytes)
			if err := q.takeSums(context.Background(), n, out); err != nil {
				t.Fatal(err)
			}
			got = append(got, out...)
		}
		if !bytes.Equal(got, want) {
			t.Fatal("other checksums were taken than were delivered")
		}
	})
}

func TestChecksumsThatWereNotAskedForAreRefused(t *testing.T) {
	one := make([]byte, sumBytes)
	for name, part := range map[string]*umbrav1.ChecksumsPart{
		"another disk":    {Disk: 1, FirstCluster: 5, Checksums: one},
		"another cluster": {FirstCluster: 6, Checksums: one},
		"too many":        {FirstCluster: 5, Checksums: make([]byte, 3*sumBytes)},
		"half a checksum": {FirstCluster: 5, Checksums: one[:8]},
		"none":            {FirstCluster: 5},
	} {
		q := &sumQueue{news: make(chan struct{}, 1)}
		if err := q.deliver(&umbrav1.ChecksumsPart{FirstCluster: 5, Checksums: one}); !errors.Is(err, errShadowProtocol) {
			t.Errorf("nothing asked for: %v", err)
		}
		q.expect(window{0, span{5, 7}})
		if err := q.deliver(part); !errors.Is(err, errShadowProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
