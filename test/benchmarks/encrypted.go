package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
)

// syncEncrypted is row 3: the daemons as they are, beside QEMU's own NBD over TLS.
func syncEncrypted(ctx context.Context, b *bench) error {
	return b.onSite(ctx, func(ctx context.Context, s *site) error {
		c := content{size: b.syncSize(), noise: []part{{0, b.syncSize()}}}
		if err := makeImage(ctx, disk(s.Main, syncServer), c); err != nil {
			return err
		}
		if err := s.startIdle(ctx, syncServer); err != nil {
			return err
		}
		t, err := s.prepareTLS(ctx, syncServer)
		if err != nil {
			return err
		}
		const peer = "nbdcopy from QEMU's NBD over TLS"
		got, err := b.alternate(ctx, side{ourSide, nil, s.pairSync}, side{peer, nil, t.copy})
		if err != nil {
			return err
		}
		b.faster(fmt.Sprintf("full sync, encrypted, %d GiB", c.size/gib), got[ourSide], got[peer], peer, 1.7, 2.5)
		b.remark("From the request for protection to the durable point.")
		return nil
	})
}

// pairSync measures from the request for protection to when the recovery point is durable, as the point itself tells.
func (s *site) pairSync(ctx context.Context) (float64, error) {
	began := time.Now()
	if err := s.protect(ctx, syncServer, idleInterval); err != nil {
		return 0, err
	}
	if err := s.waitPoints(ctx, syncServer, 1); err != nil {
		return 0, err
	}
	points, err := s.Points(ctx, syncServer)
	if err != nil {
		return 0, err
	}
	took := points[len(points)-1].GetCompleteTime().AsTime().Sub(began)
	return took.Seconds(), s.unprotect(ctx, syncServer)
}

// unprotect deletes the pair with everything that it has.
func (s *site) unprotect(ctx context.Context, pair string) error {
	answer, err := s.Protection.DeleteDRPair(ctx, &umbrav1.DeleteDRPairRequest{Name: pairName(pair)})
	if err != nil {
		return fmt.Errorf("delete pair %s: %w", pair, err)
	}
	return s.succeed(ctx, answer.GetOperation())
}

// copy measures nbdcopy from QEMU's TLS to a qcow2 image of the shadow host's, and the sync.
func (t *tlsSite) copy(ctx context.Context) (took float64, err error) {
	stop, err := t.export(ctx, syncServer)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	target := filepath.Join(t.Shadow.ImagesDir(), "copy.qcow2")
	if _, err := command(ctx, "qemu-img", "create", "-q", "-f", "qcow2", target, fmt.Sprint(t.bench.syncSize())); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.Remove(target)) }()
	from := fmt.Sprintf("nbds://%s:%d/vda?tls-certificates=%s", lab.MainAddress, tlsExportPort, t.folder("client"))
	return timed(func() error {
		if _, err := finish(t.Shadow.Command(ctx, "nbdcopy", "--flush", from, "--", "[", "qemu-nbd", "-f", "qcow2", target, "]")); err != nil {
			return err
		}
		_, err := command(ctx, "sync", target)
		return err
	})
}
