package chaos

import (
	"context"
	"time"
)

// promise is one thing that must hold after every fault, however that was mended. Its check waits for what the system
// is given time for, and never longer than eventualMax.
type promise struct {
	says  string
	check func(ctx context.Context, w *world) error
}

// promises are checked in this order: the first that is broken explains the most.
var promises = []promise{
	{"every pair ends in a state of the table, with its actions, and no operation in flight", checkState},
	{"an acknowledged request is carried out exactly once", checkOnce},
	{"the newest point is never older than what was acknowledged", checkNewest},
	{"no byte of an older epoch after a failover has stopped replication", checkEpoch},
	{"never both servers running with the network connected", checkAlone},
	{"a usable point boots, and holds what the main disks held", checkBoot},
	{"a usable point equals an independent copy, bit for bit", checkCopies},
	{"nothing leaks on the main host", checkMainLeaks},
	{"nothing leaks on the shadow host", checkShadowLeaks},
}

// eventualMax is how long something may take that happens by itself after a fault.
const eventualMax = 3 * time.Minute
