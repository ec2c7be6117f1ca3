package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

const (
	readPoints = 1_000
	readBytes  = gib
	servingMax = 10 * time.Second
)

// pointReads is row 8: random reads through QEMU's block layer from points of a long row, and from a flat image of the same content.
func pointReads(ctx context.Context, b *bench) error {
	s, err := openPointStore(ctx, b.path("work", "reads"), readBytes)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // it is thrown away
	if err := s.fill(ctx); err != nil {
		return err
	}
	if _, err := s.grow(ctx, readPoints); err != nil {
		return err
	}
	points := s.Points()
	for _, one := range []struct {
		name string
		at   int
	}{{"newest", len(points) - 1}, {"middle", len(points) / 2}, {"oldest", 0}} {
		if err := s.comparePoint(ctx, b, one.name, points[one.at].ID); err != nil {
			return fmt.Errorf("the %s point: %w", one.name, err)
		}
	}
	return nil
}

func (s *pointStore) comparePoint(ctx context.Context, b *bench, name string, id recoverystore.PointID) error {
	view, err := s.OpenView(ctx, id, recoverystore.ViewOptions{})
	if err != nil {
		return err
	}
	image, flat := view.Disks[0].QEMUImage(), b.path("work", "flat.qcow2")
	if _, err := command(ctx, "qemu-img", "convert", "-t", "none", "-T", "none", "-W", "-O", "qcow2", image, flat); err != nil {
		return err
	}
	const peer = "flat qcow2"
	got, err := b.alternate(ctx,
		side{ourSide, nil, func(ctx context.Context) (float64, error) { return b.randomReads(ctx, image) }},
		side{peer, nil, func(ctx context.Context) (float64, error) { return b.randomReads(ctx, flat) }})
	if err != nil {
		return err
	}
	b.share(fmt.Sprintf("4 KiB random reads from the %s of 1,000 points", name), "reads/s", got[ourSide], got[peer], peer, target{0.9, 1.0, atLeast})
	b.remark("fio over NBD from qemu-nbd with cache=none on both sides, 16 in flight; a disk of 1 GiB, fully written.")
	return errors.Join(os.Remove(flat), s.CloseView(ctx, id))
}

// randomReads serves an image and reads it, and returns reads a second.
func (b *bench) randomReads(ctx context.Context, image string) (rate float64, err error) {
	socket := b.path("work", "nbd.sock")
	ctx, stop := context.WithCancel(ctx)
	serving := exec.CommandContext(ctx, "qemu-nbd", "-r", "-t", "--cache=none", "-k", socket, image)
	var said strings.Builder
	serving.Stderr = &said
	if err := serving.Start(); err != nil {
		stop()
		return 0, err
	}
	defer func() {
		stop()
		_ = serving.Wait()    // it was killed
		_ = os.Remove(socket) // the next one makes its own
	}()
	for limit := time.Now().Add(servingMax); ; {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(limit) {
			return 0, fmt.Errorf("qemu-nbd does not serve: %s", said.String())
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return 0, err
		}
	}
	// Standard output only: fio has remarks on what it does.
	out, err := exec.CommandContext(ctx, "fio", "--name=read", "--ioengine=nbd", "--uri=nbd+unix:///?socket="+socket, "--rw=randread",
		"--bs=4k", "--iodepth=16", "--time_based", "--runtime=1", "--randseed=1", "--output-format=json").Output()
	if err != nil {
		return 0, fmt.Errorf("fio: %w: %s", err, out)
	}
	var report struct {
		Jobs []struct{ Read struct{ IOPS float64 } }
	}
	if err := json.Unmarshal(out[strings.Index(string(out), "{"):], &report); err != nil || len(report.Jobs) == 0 {
		return 0, fmt.Errorf("fio said %q: %w", out, err)
	}
	return report.Jobs[0].Read.IOPS, nil
}
