// Package monitoring_test tries what deploy/monitoring has against a real Prometheus that scrapes a real control plane and a
// host whose hypervisor is simulated.
package monitoring_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// patience is how long anything may take that must come.
	patience = time.Minute
	// look is how often a process is asked whether it has come.
	look = 100 * time.Millisecond
)

// until asks again and again until the answer is nil, and fails with the last answer when patience is over.
func until(t *testing.T, what string, ask func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	again := time.NewTicker(look)
	defer again.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatal(fmt.Errorf("%s: %w", what, err))
		}
	}
}
