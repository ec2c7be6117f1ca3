package enrolment_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/hostd/enrolment"
	"github.com/umbra-dr/umbra/pkg/identity"
)

func TestAHostWhoseClockDiffersWithinTheBoundsEnrolsConnectsAndRenews(t *testing.T) {
	for name, behind := range map[string]time.Duration{"9 min behind": 9 * time.Minute, "11 h ahead": -11 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			s := newSiteAt(t, behind)
			h := s.host(t, "a", t.TempDir(), s.token(t, "a"))
			made, err := h.open(t)
			if err != nil {
				t.Fatal(err)
			}
			source := identity.NewSource(made, nil)
			conn := s.dial(t, source)
			if err := check(t, conn); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				enrolment.Keep(ctx, h.cfg, source, conn)
			}()
			hand := h.cfg.Clock.(*handClock)
			// The half of its life by the control plane's clock, give or take the difference.
			if wait, want := <-hand.waits, 7*day+behind; (wait - want).Abs() > time.Minute {
				t.Errorf("it is renewed after %v, not %v", wait, want)
			}
			hand.move(8 * day)
			<-hand.waits // for the next renewal: the one before is done
			if source.Current() == made {
				t.Error("the certificate was not renewed")
			}
			cancel()
			<-ended
		})
	}
}

func TestAHostWhoseClockDiffersByMoreSaysSoWithTheTimes(t *testing.T) {
	for name, behind := range map[string]time.Duration{"11 min behind": 11 * time.Minute, "25 h ahead": -25 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			s := newSiteAt(t, behind)
			h := s.host(t, "a", t.TempDir(), s.token(t, "a"))
			var log bytes.Buffer
			h.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
			ctx, cancel := context.WithCancel(t.Context())
			result := make(chan error, 1)
			go func() { _, err := enrolment.Open(ctx, h.cfg); result <- err }()
			<-h.cfg.Clock.(*handClock).waits // it has been refused, and tries again: the clock may be set meanwhile
			cancel()
			if err := <-result; err == nil {
				t.Fatal("it enrolled")
			}
			for _, says := range []string{"clocks is wrong", "current time ", "counts from " + s.clock.Now().Add(-10*time.Minute).UTC().Format(time.RFC3339)} {
				if !strings.Contains(log.String(), says) {
					t.Errorf("the log does not say %q: %s", says, &log)
				}
			}
		})
	}
}
