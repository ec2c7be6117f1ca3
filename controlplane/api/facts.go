package api

import (
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// Facts are the figures that the API shows of a pair, for others who show them.
type Facts struct {
	Ready, Protected, Fenced bool
	// Replicating: recovery points are made, or should be.
	Replicating bool
	// Newest is the moment that the newest recovery point holds, by the control plane's clock; zero when none is known of. RPO is its age.
	Newest time.Time
	RPO    time.Duration
	// Main and Shadow are the last reports, nil before the first. They are not to be changed.
	Main   *umbrav1.MainReport
	Shadow *umbrav1.ShadowReport
}

// FactsOf tells what is known of a pair now. It reads memory only.
func FactsOf(p drpair.Pair, hosts Observed, now time.Time) Facts {
	s := seenOf(p, hosts)
	facts := Facts{
		Ready: holds(ready(p, s)), Protected: holds(protected(p, s, now)), Fenced: holds(fenced(p.Fence)), Replicating: replicating(p),
		Newest: s.newest, Main: s.main, Shadow: s.shadow,
	}
	if !s.newest.IsZero() {
		facts.RPO = age(s.newest, now)
	}
	return facts
}

func holds(c *umbrav1.Condition) bool {
	return c.GetStatus() == umbrav1.ConditionStatus_CONDITION_STATUS_TRUE
}
