package recoverystore

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/umbra-dr/umbra/pkg/faultydisk"
)

// fillIndex makes points without data: the first maps the whole disk in runs of runClusters, each
// later one changes changes chunks.
func fillIndex(b *testing.B, s *Store, chunks uint32, runClusters, points, changes int) {
	b.Helper()
	d := s.disks[1]
	runsOfAll := uint64(chunks) * ChunkClusters / uint64(runClusters)
	// Of the first version neighbours lie half a disk apart, and nothing is free between: Open would punch that, run by run.
	spread := func(i uint64) uint64 { return d.dataStart() + (i%2*(runsOfAll/2)+i/2)*uint64(runClusters) }
	next := d.dataStart() + runsOfAll*uint64(runClusters)
	place := func(n int) uint64 {
		// Leaves a gap, so that no two runs join.
		next += uint64(n) + 1
		return next - uint64(n)
	}
	disks := []pointDisk{{DiskInfo{"vda", int64(chunks) * ChunkClusters * ClusterSize}, 1}}
	put := func(tx *bbolt.Tx, chunk uint32, seq int, runs []run) error {
		e := entry{runs: runs}
		e.sums = make([]Sum, e.dataClusters())
		return chunksOf(tx).put(chunkKey{1, chunk}, uint64(seq), e)
	}
	err := s.idx.update(func(tx *bbolt.Tx) error {
		for chunk := range chunks {
			var runs []run
			for first := 0; first < ChunkClusters; first += runClusters {
				i := (uint64(chunk)*ChunkClusters + uint64(first)) / uint64(runClusters)
				runs = append(runs, run{first: first, count: runClusters, loc: spread(i)})
			}
			if err := put(tx, chunk, 1, runs); err != nil {
				return err
			}
		}
		return nil
	})
	for p := 2; p <= points && err == nil; p++ {
		err = s.idx.update(func(tx *bbolt.Tx) error {
			for i := range changes {
				runs := []run{{first: i % 1000, count: 3, loc: place(3)}, {first: i%1000 + 10, count: 1, loc: place(1)}}
				if err := put(tx, uint32(i*7919+p*104729)%chunks, p, runs); err != nil {
					return err
				}
			}
			return putRecord(tx.Bucket(bucketPoints), uintValue(uint64(p)), pointRecord{Seq: uint64(p), Disks: disks})
		})
	}
	if err == nil {
		err = d.file.Truncate(int64(next) * ClusterSize)
	}
	if err != nil {
		b.Fatal(err)
	}
	s.points = append(s.points, &pointRecord{Seq: uint64(points), Disks: disks})
	s.seq = uint64(points) + 1
}

func BenchmarkOpenView(b *testing.B) {
	for _, c := range []struct {
		name                       string
		chunks                     uint32
		run, points, changedPerSeq int
	}{
		{"64GiB/scattered/1000points", 1024, 1, 1000, 50},
		{"1TiB/contiguous/1000points", 16 << 10, 1024, 1000, 50},
		{"1TiB/scattered/1000points", 16 << 10, 1, 1000, 100},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := newTestStore(b, Options{noIndexSync: true}, DiskSpec{"vda", int64(c.chunks) * ChunkClusters * ClusterSize})
			fillIndex(b, s, c.chunks, c.run, c.points, c.changedPerSeq)
			id := pointID(uint64(c.points))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.OpenView(b.Context(), id, ViewOptions{}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.CloseView(b.Context(), id); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// largeDir lets one process make the store and others measure it, so that what the making takes is not counted.
var largeDir = flag.String("large", "", "folder of the store of BenchmarkLargeView, which makes it when it is not there")

// BenchmarkLargeView opens a store of a fully written disk of 1 TiB, scattered, with 1,000 points, and then views of its newest point.
func BenchmarkLargeView(b *testing.B) {
	const chunks, points = 16 << 10, 1000
	if *largeDir == "" {
		b.Skip("no folder was given")
	}
	spec := DiskSpec{"vda", chunks * ChunkClusters * ClusterSize}
	if _, err := os.Stat(*largeDir); errors.Is(err, fs.ErrNotExist) {
		s := openTest(b, *largeDir, Options{noIndexSync: true})
		if err := s.EnsureDisks(b.Context(), []DiskSpec{spec}); err != nil {
			b.Fatal(err)
		}
		fillIndex(b, s, chunks, 1, points, 100)
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	began := time.Now()
	s := openTest(b, *largeDir, Options{})
	opened := time.Since(began)
	for b.Loop() {
		if _, err := s.OpenView(b.Context(), pointID(points), ViewOptions{}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.CloseView(b.Context(), pointID(points)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(opened.Seconds(), "s-open")
	var own runtime.MemStats
	runtime.ReadMemStats(&own)
	b.ReportMetric(float64(own.Sys)/(1<<20), "MiB-own") // the most that there ever was; what is mapped of the index is not in it
}

func BenchmarkWrite(b *testing.B) {
	for _, kib := range []int{64, 1024} {
		b.Run(fmt.Sprintf("%dKiB", kib), func(b *testing.B) {
			const disk = 1 << 30
			s := newTestStore(b, Options{}, DiskSpec{"vda", disk})
			data := bytes.Repeat([]byte("umbra..."), kib<<10/8)
			sums := hashClusters(data)
			d := begin(b, s)
			b.SetBytes(int64(len(data)))
			at := uint64(0)
			for b.Loop() {
				if err := d.WriteClusters("vda", at, data, sums); err != nil {
					b.Fatal(err)
				}
				if at += uint64(len(sums)); at >= disk/ClusterSize {
					at = 0
				}
			}
		})
	}
}

// BenchmarkSmallPoint takes a point of 1 MiB in 16 places, with everything durable.
func BenchmarkSmallPoint(b *testing.B) {
	s := newTestStore(b, Options{}, DiskSpec{"vda", 10 << 30})
	data := bytes.Repeat([]byte("umbra..."), ClusterSize/8)
	sums := hashClusters(data)
	n := uint64(0)
	for b.Loop() {
		d := begin(b, s)
		for range 16 {
			n += 7919
			if err := d.WriteClusters("vda", n%(10<<30/ClusterSize), data, sums); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := d.Complete(b.Context(), PointMeta{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen opens a store, which reads the structure of its index and all of what says where data lies.
func BenchmarkOpen(b *testing.B) {
	for _, c := range []struct {
		name                        string
		chunks                      uint32
		runClusters, points, change int
	}{
		{"64GiB-10000points-of-20chunks", 1024, 16, 10000, 20},
		{"1TiB-1000points-contiguous", 16384, 1024, 1000, 20},
		{"512GiB-1000points-scattered", 8192, 1, 1000, 20},
	} {
		b.Run(c.name, func(b *testing.B) {
			size := int64(c.chunks) * ChunkClusters * ClusterSize
			s := openTest(b, filepath.Join(faultydisk.Dir(b), "store"), Options{noIndexSync: true})
			if err := s.EnsureDisks(b.Context(), []DiskSpec{{"vda", size}}); err != nil {
				b.Fatal(err)
			}
			fillIndex(b, s, c.chunks, c.runClusters, c.points, c.change)
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			first, err := Open(b.Context(), s.dir, Options{}) // makes what fillIndex leaves out
			if err != nil {
				b.Fatal(err)
			}
			u, err := first.Usage()
			if err := errors.Join(err, first.Close()); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(u.IndexBytes)/(1<<20), "MiB-index")
			for b.Loop() {
				s, err := Open(b.Context(), s.dir, Options{})
				if err == nil {
					err = s.Close()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
