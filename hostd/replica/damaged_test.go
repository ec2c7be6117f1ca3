package replica_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// The pair says what is wrong and what to do; nobody else notices, and it can be deleted and protected anew.
func TestADamagedIndexIsOfItsPairAlone(t *testing.T) {
	g := newRig(t)
	g.apply(accepting(1))
	m, _ := g.connect(hello(1, vda(4)))
	m.pointsAt(time.Now())
	m.cancel()
	g.stop()
	if err := os.Truncate(filepath.Join(g.dir, "stores", pairID, "index.db"), 8<<10); err != nil {
		t.Fatal(err)
	}
	g.start()
	g.apply(accepting(1))
	f := g.replica.Status(pairID).Failure
	if f.GetReason() != umbrav1.ErrorReason_ERROR_REASON_INTERNAL || f.GetRetryable() ||
		!strings.Contains(f.GetMessage(), "index is corrupt") || len(f.GetRecommendedActions()) == 0 {
		t.Errorf("the pair says %v", f)
	}
	if f := g.refused(hello(1, vda(4))); !strings.Contains(f.GetMessage(), "index is corrupt") {
		t.Errorf("the main side is told %v", f)
	}
	if _, err := g.replica.Store(pairID); !errors.Is(err, recoverystore.ErrCorruptIndex) {
		t.Errorf("a failover is told %v", err)
	}

	other := accepting(1)
	other.Pair = "pair-2"
	g.apply(other)
	h := hello(1, vda(4))
	h.DrPair = other.Pair
	m, _ = g.connect(h)
	m.pointsAt(time.Now())

	if err := g.replica.Delete(t.Context(), pairID); err != nil {
		t.Fatal(err)
	}
	g.apply(accepting(1))
	m, _ = g.connect(hello(1, vda(4)))
	m.pointsAt(time.Now())
}
