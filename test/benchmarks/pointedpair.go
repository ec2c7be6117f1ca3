package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

const (
	pointedServer = "pointed"
	pointedBytes  = 64 * mib
	pointedCount  = 1_000
	newestPoint   = "newest"
	oldestPoint   = "oldest"
)

// pointedPair is a pair with a row of 1,000 points, whose main host is dead, and flat copies of the row's ends. The first point
// comes from the server itself. The others are made in its store with the store's own code, as replication makes them, except that
// nobody waits for a second between two: each stores 1 MiB anew in 16 places of what the guest needs to boot.
type pointedPair struct {
	*frozenPair
	points []string // names, newest first
}

// preparePoints makes the pair.
func (s *site) preparePoints(ctx context.Context) (*pointedPair, error) {
	spec := lab.GuestSpec{Name: pointedServer, DiskBytes: []int64{pointedBytes}, RecordsPerSecond: -1}
	if err := s.startGuest(ctx, spec); err != nil {
		return nil, err
	}
	definition, err := s.Main.Virsh(ctx, "dumpxml", "--inactive", pointedServer)
	if err != nil {
		return nil, err
	}
	p := &pointedPair{}
	p.frozenPair, err = s.freeze(ctx, pointedServer, func(f *frozenPair, store *recoverystore.Store) error {
		p.frozenPair = f
		if err := p.fillStore(ctx, store); err != nil {
			return fmt.Errorf("make 1,000 points: %w", err)
		}
		for _, end := range []string{newestPoint, oldestPoint} {
			if err := p.define(ctx, strings.ReplaceAll(definition, pointedServer, flatServer(end))); err != nil {
				return err
			}
		}
		return nil
	})
	return p, err
}

func flatServer(end string) string { return "flat-" + end }

// single is what two definitions must not share.
var single = regexp.MustCompile(`<uuid>.*</uuid>|<mac address=.*/>`)

func (p *pointedPair) define(ctx context.Context, definition string) error {
	file := filepath.Join(p.Shadow.Dir, "flat.xml")
	if err := os.WriteFile(file, single.ReplaceAll([]byte(definition), nil), 0o600); err != nil {
		return err
	}
	_, err := p.Shadow.Virsh(ctx, "define", file)
	return err
}
