package recoverystore

import (
	"errors"
	"sync"
	"testing"
)

// TestEverythingAtOnce fills drafts while points are viewed, deleted, verified and scrubbed, and
// wants each point to read back as taken. Run it with the race detector.
func TestEverythingAtOnce(t *testing.T) {
	const disk, points = 2048, 40
	s := newTestStore(t, Options{}, DiskSpec{"vda", disk * ClusterSize})
	var mu sync.Mutex
	taken := map[PointID]modelDisk{}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		state := modelDisk{}
		for i := range uint32(points) {
			d := begin(t, s)
			for j := range uint32(8) {
				c := uint64((i*37 + j*331) % disk)
				state[c] = i*100 + j + 1
				writeTags(t, d, "vda", c, state[c])
			}
			copied := modelDisk{}
			for c, tag := range state {
				copied[c] = tag
			}
			mu.Lock()
			taken[s.nextID()] = copied
			mu.Unlock()
			complete(t, d)
		}
	})
	until := func(step func(points []Point) error) {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := step(s.Points()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	expected := func(err error) error {
		if errors.Is(err, ErrNoPoint) || errors.Is(err, ErrPointInUse) || errors.Is(err, ErrNewestPoint) {
			return nil
		}
		return err
	}
	n := 0
	until(func(points []Point) error {
		if len(points) < 4 {
			return nil
		}
		n++
		return expected(s.Delete(t.Context(), points[n%(len(points)-1)].ID))
	})
	until(func(points []Point) error {
		if len(points) == 0 {
			return nil
		}
		id := points[len(points)/2].ID
		v, err := s.OpenView(t.Context(), id, ViewOptions{})
		if err != nil {
			return expected(err)
		}
		mu.Lock()
		want := taken[id]
		mu.Unlock()
		return errors.Join(compareView(v.Disks[0], want), s.CloseView(t.Context(), id))
	})
	until(func(points []Point) error {
		if len(points) == 0 {
			return nil
		}
		r, err := s.Verify(t.Context(), points[0].ID, VerifyOptions{})
		if len(r.Bad) > 0 {
			t.Errorf("good data reported as damaged: %+v", r.Bad)
		}
		_, scrubErr := s.Scrub(t.Context(), 1<<20)
		return errors.Join(expected(err), scrubErr)
	})
	until(func([]Point) error {
		_, err := s.Usage()
		return errors.Join(err, s.Checksums(t.Context(), "vda", 0, make([]Checksum, disk), FromData))
	})
	wg.Wait()
	if n := len(damagedPoints(s)); n != 0 {
		t.Fatalf("%d points are marked as damaged", n)
	}
	for _, p := range s.Points() {
		mustRead(t, s, p.ID, taken[p.ID])
	}
	if err := s.fsck(); err != nil {
		t.Fatal(err)
	}
}

func (s *Store) nextID() PointID { return pointID(s.Draft().Seq) }
