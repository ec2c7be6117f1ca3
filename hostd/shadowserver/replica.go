package shadowserver

import (
	"context"

	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// Replica is what the shadow role needs of hostd/replica. Safe for concurrent use.
type Replica interface {
	// Apply makes the replica follow the spec. With Accept false it returns only when no byte of the spec's epoch
	// or of a lower one can reach the store any more, and that promise is durable. It may be repeated.
	Apply(ctx context.Context, spec replica.Spec) error
	// Store is the open store of a pair that Apply was ever called for, also before a restart.
	Store(pair string) (*recoverystore.Store, error)
	// Status is the present state of a pair, from memory.
	Status(pair string) replica.Status
	// Refresh has Status say what the store holds now. It is called after the store was changed here.
	Refresh(pair string)
	// Delete stops the pair's streams and removes its store. A pair without a store is no error.
	Delete(ctx context.Context, pair string) error
}
