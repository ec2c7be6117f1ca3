package session_test

import (
	"context"
	"sync"
	"time"

	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/registry"
)

// alone is the registry of a control plane that has no other beside it. Sessions are numbered from 1.
type alone struct {
	observed *observed.Hosts
	refuse   error // why nobody may enter

	mu   sync.Mutex
	ever uint64
	ends map[string]context.CancelCauseFunc
}

func newAlone(hosts *observed.Hosts) *alone {
	return &alone{observed: hosts, ends: map[string]context.CancelCauseFunc{}}
}

func (r *alone) Enter(_ context.Context, host string, end context.CancelCauseFunc) (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse != nil {
		return 0, r.refuse
	}
	if older := r.ends[host]; older != nil {
		older(registry.ErrReplaced)
	}
	r.ever++
	r.ends[host] = end
	r.observed.Connect(host, r.ever, "here", time.Now())
	return r.ever, nil
}

// count is how many sessions have begun.
func (r *alone) count() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ever
}

func (r *alone) Leave(host string, number uint64) {
	r.observed.Disconnect(host, number, true, time.Now())
}
