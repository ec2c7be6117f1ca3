package main

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// pointClusters is how much changes from one point to the next in the rows about many points: 1 MiB, all over the disk.
const pointClusters = 16

// pointStore is a store that a row fills by itself, without hosts.
type pointStore struct {
	*recoverystore.Store
	disk recoverystore.DiskSpec
	rand *rand.Rand
	data []byte
}

const pointDisk = "vda"

func openPointStore(ctx context.Context, dir string, size int64) (*pointStore, error) {
	store, err := recoverystore.Open(ctx, dir, recoverystore.Options{})
	if err != nil {
		return nil, err
	}
	s := &pointStore{
		Store: store, disk: recoverystore.DiskSpec{Name: pointDisk, SizeBytes: size},
		rand: rand.New(rand.NewPCG(1, 2)), data: make([]byte, recoverystore.ClusterSize),
	}
	return s, s.EnsureDisks(ctx, []recoverystore.DiskSpec{s.disk})
}

// take makes a point of pointClusters changed clusters and returns the seconds until it is durable.
func (s *pointStore) take(ctx context.Context) (float64, error) {
	clusters := uint64(s.disk.SizeBytes / recoverystore.ClusterSize)
	return timed(func() error {
		draft, err := s.Begin()
		if err != nil {
			return err
		}
		for range pointClusters {
			s.noise(s.data)
			if err := draft.WriteClusters(pointDisk, s.rand.Uint64N(clusters), s.data, nil); err != nil {
				return err
			}
		}
		_, err = draft.Complete(ctx, recoverystore.PointMeta{CreateTime: time.Now()})
		return err
	})
}

// noise fills a cluster with bytes that differ from those of every other.
func (s *pointStore) noise(b []byte) {
	for i := 0; i < len(b); i += 8 {
		x := s.rand.Uint64()
		for j := range 8 {
			b[i+j] = byte(x >> (8 * j))
		}
	}
}

// fill writes the whole disk and makes a point of it.
func (s *pointStore) fill(ctx context.Context) error {
	draft, err := s.Begin()
	if err != nil {
		return err
	}
	data := make([]byte, mib)
	for at := int64(0); at < s.disk.SizeBytes; at += mib {
		s.noise(data)
		if err := draft.WriteClusters(pointDisk, uint64(at/recoverystore.ClusterSize), data, nil); err != nil {
			return err
		}
	}
	_, err = draft.Complete(ctx, recoverystore.PointMeta{CreateTime: time.Now()})
	return err
}

// scatter writes the whole disk, cluster by cluster in random order, and makes a point of it.
func (s *pointStore) scatter(ctx context.Context) error {
	draft, err := s.Begin()
	if err != nil {
		return err
	}
	for _, cluster := range s.rand.Perm(int(s.disk.SizeBytes / recoverystore.ClusterSize)) {
		s.noise(s.data)
		if err := draft.WriteClusters(pointDisk, uint64(cluster), s.data, nil); err != nil {
			return err
		}
	}
	_, err = draft.Complete(ctx, recoverystore.PointMeta{CreateTime: time.Now()})
	return err
}

// grow takes points until there are so many, and returns how long each took.
func (s *pointStore) grow(ctx context.Context, points int) ([]float64, error) {
	var took []float64
	for n := len(s.Points()); n < points; n++ {
		seconds, err := s.take(ctx)
		if err != nil {
			return nil, fmt.Errorf("point %d: %w", n, err)
		}
		took = append(took, seconds)
	}
	return took, nil
}

// storeSize is row 13: what the store takes on its file system, against what has changed.
func storeSize(ctx context.Context, b *bench) error {
	var ours, theirs []float64
	for i := range b.times {
		s, err := openPointStore(ctx, b.path("work", fmt.Sprint("size", i)), 10*gib)
		if err != nil {
			return err
		}
		if _, err := s.grow(ctx, 200); err != nil {
			return err
		}
		var changed int64
		for _, p := range s.Points() {
			changed += p.ChangedBytes
		}
		if err := s.Close(); err != nil {
			return err
		}
		taken, err := blockBytes(b.path("work", fmt.Sprint("size", i)))
		if err != nil {
			return err
		}
		ours = append(ours, float64(taken)/float64(mib))
		theirs = append(theirs, float64(changed)/float64(mib))
	}
	b.share("store of 200 points of 1 MiB each, in 16 places", "MiB", ours, theirs, "sum of the changed clusters", target{1.05, 1.0, atMost})
	b.remark("All that the file system says the store's folder takes. The store does not compress.")
	return nil
}

// blockBytes is what a folder's files take on their file system.
func blockBytes(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Stat(path, &st)
		}
		sum += st.Blocks * 512
		return err
	})
	return sum, err
}
