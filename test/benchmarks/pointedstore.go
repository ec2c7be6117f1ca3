package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// fillStore adds points until there are 1,000, and makes flat copies of the first and the last.
func (p *pointedPair) fillStore(ctx context.Context, store *recoverystore.Store) error {
	first, err := store.Point(store.Points()[0].ID)
	if err != nil {
		return err
	}
	raw := p.bench.path("work", "pointed.raw")
	if err := p.copyPoint(ctx, store, first.ID, "raw", raw); err != nil {
		return err
	}
	content, err := os.ReadFile(raw)
	if err != nil {
		return err
	}
	s := &pointStore{Store: store, disk: recoverystore.DiskSpec{Name: pointDisk, SizeBytes: pointedBytes}}
	if err := s.repeat(ctx, first, content, pointedCount); err != nil {
		return err
	}
	points := store.Points()
	for _, one := range slices.Backward(points) {
		p.points = append(p.points, pairName(pointedServer)+"/recoveryPoints/"+string(one.ID))
	}
	for end, at := range map[string]int{newestPoint: len(points) - 1, oldestPoint: 0} {
		if err := p.copyPoint(ctx, store, points[at].ID, "qcow2", disk(p.Shadow, flatServer(end))); err != nil {
			return err
		}
	}
	return os.Remove(raw)
}

// copyPoint makes an image of a point, all of it on stable storage.
func (p *pointedPair) copyPoint(ctx context.Context, store *recoverystore.Store, id recoverystore.PointID, format, to string) error {
	view, err := store.OpenView(ctx, id, recoverystore.ViewOptions{})
	if err != nil {
		return err
	}
	if _, err := command(ctx, "qemu-img", "convert", "-O", format, view.Disks[0].QEMUImage(), to); err != nil {
		return err
	}
	_, err = command(ctx, "sync", to)
	return errors.Join(err, store.CloseView(ctx, id))
}

// repeat makes points, each of clusters that already are on the disk, until there are so many.
func (s *pointStore) repeat(ctx context.Context, first recoverystore.Point, content []byte, points int) error {
	var used []uint64
	zero := make([]byte, recoverystore.ClusterSize)
	for at := 0; at < len(content); at += len(zero) {
		if !bytes.Equal(content[at:at+len(zero)], zero) {
			used = append(used, uint64(at/len(zero)))
		}
	}
	for n := len(s.Points()); n < points; n++ {
		draft, err := s.Begin()
		if err != nil {
			return err
		}
		for i := range pointClusters {
			cluster := used[(n*pointClusters+i*len(used)/pointClusters)%len(used)]
			at := int(cluster) * len(zero)
			if err := draft.WriteClusters(pointDisk, cluster, content[at:at+len(zero)], nil); err != nil {
				return err
			}
		}
		meta := recoverystore.PointMeta{
			Epoch: first.Epoch, CreateTime: first.CreateTime.Add(time.Duration(n) * time.Millisecond), Consistency: first.Consistency,
			Checkpoint: first.Checkpoint, ServerXML: first.ServerXML, Attachments: first.Attachments,
		}
		if _, err := draft.Complete(ctx, meta); err != nil {
			return err
		}
	}
	return nil
}
