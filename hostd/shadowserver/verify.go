package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// What the policy means where it says nothing, and how often the checks are tried.
const (
	defaultRunTime       = 2 * time.Second
	defaultVerifyTimeout = 2 * time.Minute
	verifyInterval       = 200 * time.Millisecond
	probeTimeout         = 5 * time.Second
	verifyMargin         = 30 * time.Second // for the last call that is under way when the policy's time is over

	scanPieceBytes = 32 << 20
)

// scan reads a recovery point back and compares checksums, a piece at a time.
type scan struct {
	store    *recoverystore.Store
	point    recoverystore.PointID
	skip     bool // damage was accepted beforehand
	at       recoverystore.VerifyCursor
	clusters int64
	done     bool
}

// run reads on for up to budget; the error says what is damaged.
func (s *scan) run(ctx context.Context, c clock.Clock, budget time.Duration) error {
	if s.store == nil || s.skip {
		return nil
	}
	for begin := c.Now(); !s.done && c.Now().Sub(begin) < budget; {
		r, err := s.store.Verify(ctx, s.point, recoverystore.VerifyOptions{From: s.at, BytesMax: scanPieceBytes})
		if err != nil {
			return fmt.Errorf("reading back recovery point %s: %w", s.point, err)
		}
		s.clusters += r.Clusters
		s.at, s.done = r.Next, r.Done
		if len(r.Bad) > 0 {
			bad := r.Bad[0]
			return refuse(umbrav1.ErrorReason_ERROR_REASON_RECOVERY_POINT_DAMAGED,
				"recovery point %s is damaged: disk %s at byte %d does not match its checksum",
				s.point, bad.Disk, bad.First*recoverystore.ClusterSize)
		}
	}
	return nil
}

func (s *scan) summary() string {
	switch {
	case s.skip:
		return "checksums not verified, as asked"
	case s.done:
		return "all checksums verified"
	default:
		return fmt.Sprintf("checksums of %d MiB verified", s.clusters*recoverystore.ClusterSize>>20)
	}
}

func (b *boot) verifyLimit() time.Duration {
	return policyTimeout(b.spec.GetPolicy().GetVerification()) + verifyMargin
}

func policyTimeout(v *umbrav1.VerificationPolicy) time.Duration {
	if v.GetTimeout() == nil {
		return defaultVerifyTimeout
	}
	return v.GetTimeout().AsDuration()
}

// verify waits until the server has shown everything that the policy asks for. Meanwhile the recovery point is read
// on; damage that turns up is a failure, unless it was accepted beforehand.
func (b *boot) verify(ctx context.Context) (string, error) {
	if b.scan.store == nil { // an earlier life prepared the disks
		b.scan = scan{store: b.store, point: b.point.ID, skip: b.attempt().Force}
	}
	scanning, stop := context.WithCancel(ctx)
	damage := make(chan error, 1)
	go func() { damage <- b.scan.run(scanning, b.cfg.Clock, b.verifyLimit()) }()
	seen, err := b.watch(ctx, damage)
	stop()
	if found := <-damage; err == nil && found != nil && !errors.Is(found, context.Canceled) {
		err = found
	}
	if err != nil {
		return "", err
	}
	return seen + "; " + b.scan.summary(), nil
}

// watch tries the policy's checks until all hold, or damage is found, or the time is over. What it takes out of
// the channel it puts back.
func (b *boot) watch(ctx context.Context, damage chan error) (string, error) {
	policy := b.spec.GetPolicy().GetVerification()
	runTime := defaultRunTime
	if policy.GetRunTime() != nil {
		runTime = policy.GetRunTime().AsDuration()
	}
	begin, limit := b.cfg.Clock.Now(), policyTimeout(policy)
	checks := newChecks(b, policy)
	for {
		waiting := checks.try(ctx)
		s, err := b.lookUp(ctx, b.def.Name)
		if err != nil {
			return "", err
		}
		ran := b.cfg.Clock.Now().Sub(begin)
		switch s.Power {
		case hypervisor.PowerRunning:
			if ran < runTime {
				waiting = append(waiting, fmt.Sprintf("it has run for %s of %s", ran.Round(time.Millisecond), runTime))
			}
		case hypervisor.PowerOff, hypervisor.PowerAbsent:
			return "", refuse(umbrav1.ErrorReason_ERROR_REASON_VERIFICATION_FAILED,
				"the server stopped %s after its start", ran.Round(time.Millisecond))
		default:
			waiting = append(waiting, "it is "+s.Power.String())
		}
		if len(waiting) == 0 {
			return fmt.Sprintf("it ran for %s%s", ran.Round(time.Millisecond), checks.summary()), nil
		}
		if ran >= limit {
			return "", refuse(umbrav1.ErrorReason_ERROR_REASON_VERIFICATION_FAILED,
				"the server did not pass its verification in %s: %s", limit, strings.Join(waiting, ", "))
		}
		if err := b.cfg.Clock.Wait(ctx, verifyInterval); err != nil {
			return "", err
		}
		select {
		case found := <-damage:
			damage <- found
			if found != nil {
				return "", found
			}
		default:
		}
	}
}

// checks are those of the policy's that have not held yet. One that has held once is not tried again.
type checks struct {
	pending []check
	passed  []string
}

type check struct {
	name string
	try  func(context.Context) error
}

func newChecks(b *boot, policy *umbrav1.VerificationPolicy) *checks {
	c := &checks{}
	if policy.GetGuestAgent() {
		c.pending = append(c.pending, check{"the guest agent", func(ctx context.Context) error {
			return b.cfg.Target.AgentPing(ctx, b.def.Name)
		}})
	}
	if address := policy.GetTcpProbe(); address != "" {
		c.pending = append(c.pending, check{"TCP " + address, func(ctx context.Context) error {
			return b.cfg.Dial(ctx, address)
		}})
	}
	return c
}

// try tries what is pending, and says of each that still is why.
func (c *checks) try(ctx context.Context) (waiting []string) {
	var left []check
	for _, one := range c.pending {
		bounded, cancel := context.WithTimeout(ctx, probeTimeout)
		err := one.try(bounded)
		cancel()
		if err == nil {
			c.passed = append(c.passed, one.name)
			continue
		}
		left = append(left, one)
		waiting = append(waiting, fmt.Sprintf("%s: %v", one.name, err))
	}
	c.pending = left
	return waiting
}

func (c *checks) summary() string {
	if len(c.passed) == 0 {
		return ""
	}
	return ", " + strings.Join(c.passed, " and ") + " answered"
}
