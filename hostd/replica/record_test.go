package replica

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestWhatIsRefusedOnceIsRefusedForever(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rec record
		fresh := true
		for range rapid.IntRange(1, 30).Draw(t, "specs") {
			spec := Spec{
				Pair: "p", Generation: rapid.Uint64Range(1, 9).Draw(t, "generation"), Epoch: rapid.Uint64Range(0, 9).Draw(t, "epoch"),
				Accept: rapid.Bool().Draw(t, "accept"), MainHost: "m", ResyncGeneration: rapid.Uint64Range(0, 3).Draw(t, "resync"),
			}
			next, err := rec.follow(spec, fresh)
			if err != nil {
				if next != rec {
					t.Fatal("an error changed the record")
				}
				continue
			}
			fresh = false
			for epoch := range uint64(12) {
				hello := &umbrav1.ReplicationHello{Epoch: epoch, ResyncGeneration: next.ResyncGeneration}
				calm := next
				calm.ResyncPending = false
				welcome := calm.admits(hello, "m", time.Time{}) == nil
				switch {
				case welcome && epoch <= rec.RefusedEpoch:
					t.Fatalf("epoch %d was refused, and is welcome", epoch)
				case welcome != (spec.Accept && epoch == spec.Epoch):
					t.Fatalf("%+v: epoch %d welcome: %v", spec, epoch, welcome)
				}
			}
			if next.RefusedEpoch < rec.RefusedEpoch || !spec.Accept && next.RefusedEpoch < spec.Epoch {
				t.Fatalf("refused up to %d", next.RefusedEpoch)
			}
			if spec.ResyncGeneration > rec.ResyncGeneration && (!next.ResyncPending || !next.Untrusted) {
				t.Fatal("a restart is not noticed")
			}
			rec = next
		}
	})
}
