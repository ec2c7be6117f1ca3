package recoverystore

import (
	"fmt"
	"os"
	"path/filepath"
)

// Usage is what a store takes, in bytes.
type Usage struct {
	DataBytes      int64 // clusters in use, the draft's included
	AllocatedBytes int64 // blocks that the data files really take, views included
	IndexBytes     int64
	FreeBytes      int64 // reusable space inside the data files; takes no blocks
	FreeExtents    int
	BytesMax       int64
	Points         int
	Views          int
	ViewSlots      int
}

// Usage returns what the store takes.
func (s *Store) Usage() (Usage, error) {
	if err := s.enter(); err != nil {
		return Usage{}, err
	}
	defer s.leave()
	s.mu.Lock()
	u := Usage{BytesMax: s.opts.BytesMax, Views: len(s.views), ViewSlots: viewSlots}
	var files []dataFile
	for _, d := range s.disks {
		u.DataBytes += int64(d.space.used()) * ClusterSize
		u.FreeBytes += int64(d.space.free) * ClusterSize
		u.FreeExtents += d.space.extents()
		files = append(files, d.file)
	}
	for _, p := range s.points {
		if !p.Deleting {
			u.Points++
		}
	}
	s.mu.Unlock()
	for _, f := range files {
		n, err := f.AllocatedBytes()
		if err != nil {
			return u, fmt.Errorf("blocks of data file: %w", err)
		}
		u.AllocatedBytes += n
	}
	st, err := os.Stat(filepath.Join(s.dir, indexFileName))
	if err != nil {
		return u, fmt.Errorf("size of index: %w", err)
	}
	u.IndexBytes = st.Size()
	return u, nil
}
