package replica_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/umbra-dr/umbra/hostd/replica"
)

// Found by the simulation, seed 40004: an answer to the control plane opened the store between its removal and the pair's.
func TestAStoreThatIsAskedForDuringADeletionIsNotMadeAnew(t *testing.T) {
	for range 20 {
		g := newRig(t)
		g.apply(accepting(1))
		g.store()
		var askers sync.WaitGroup
		for range 4 {
			askers.Go(func() {
				for {
					if _, err := g.replica.Store(pairID); errors.Is(err, replica.ErrNoPair) {
						return
					}
				}
			})
		}
		if err := g.replica.Delete(t.Context(), pairID); err != nil {
			t.Fatal(err)
		}
		askers.Wait()
		if _, err := os.Stat(filepath.Join(g.dir, "stores", pairID)); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the folder of the deleted pair: %v", err)
		}
	}
}
