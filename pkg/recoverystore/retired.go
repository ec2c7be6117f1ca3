package recoverystore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/bbolt"
)

// retiredKeysPerTx bounds what one transaction removes of a disk that is no longer needed.
const retiredKeysPerTx = 4096

// dropRetiredDisks removes the disks that are not active and that no point has any more, with their
// files. It needs deleteMu, or a store that nobody uses yet. It is not to be interrupted half-way
// except by a crash: then the next Open goes on, before the disk can become active again.
func (s *Store) dropRetiredDisks() error {
	for {
		d := s.retiredDisk()
		if d == nil {
			return nil
		}
		for more := true; more; {
			var err error
			if more, err = s.dropChunks(d); err != nil {
				return fmt.Errorf("remove disk %s: %w", d.Name, err)
			}
		}
		if err := s.dropDisk(d); err != nil {
			return fmt.Errorf("remove disk %s: %w", d.Name, err)
		}
	}
}

func (s *Store) retiredDisk() *disk {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.disks {
		if !s.needs(d.diskRecord) {
			return d
		}
	}
	return nil
}

// needs says whether the next points, or one that there is, have the disk. It needs mu, or a store that nobody uses yet.
func (s *Store) needs(d diskRecord) bool {
	return d.Active || slices.ContainsFunc(s.points, func(p *pointRecord) bool { return p.hasDisk(d.ID) })
}

func (s *Store) dropChunks(d *disk) (more bool, err error) {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	err = s.update(func(tx *bbolt.Tx) error {
		var keys [][]byte
		c := tx.Bucket(bucketLocs).Cursor()
		key, _ := c.Seek(entryKey(chunkKey{d.ID, 0}, 0))
		for ; key != nil && len(keys) < retiredKeysPerTx; key, _ = c.Next() {
			if k, _, ok := parseEntryKey(key); !ok || k.disk != d.ID {
				break
			}
			keys = append(keys, slices.Clone(key))
		}
		more = len(keys) == retiredKeysPerTx
		chunks := chunksOf(tx)
		for _, key := range keys {
			k, seq, _ := parseEntryKey(key)
			if err := chunks.delete(k, seq); err != nil {
				return err
			}
		}
		return nil
	})
	return more, err
}

// dropDisk removes the disk's record, then its file. The handle stays open until Close, since a reader
// may still have it; the blocks go at once.
func (s *Store) dropDisk(d *disk) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	err := s.update(func(tx *bbolt.Tx) error {
		var recs []diskRecord
		if _, err := getRecord(tx.Bucket(bucketMeta), keyDisks, &recs); err != nil {
			return err
		}
		recs = slices.DeleteFunc(recs, func(r diskRecord) bool { return r.ID == d.ID })
		whole := diskExtents{d.ID: {{0, locMax}}}
		for _, name := range [][]byte{bucketFree, bucketDamage} {
			if err := forExtents(whole, extentSet{tx.Bucket(name)}.remove); err != nil {
				return err
			}
		}
		if err := tx.Bucket(bucketTails).Delete(tailKey(d.ID)); err != nil {
			return err
		}
		return putRecord(tx.Bucket(bucketMeta), keyDisks, recs)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.disks, d.ID)
	s.retired = append(s.retired, d.file)
	s.mu.Unlock()
	return errors.Join(d.file.Truncate(0), os.Remove(d.path), s.workOutDamage())
}

// removeStrayFiles removes the data files that no record explains: of disks that were removed, or never recorded, when a
// crash came in between. It needs a store that nobody uses yet.
func (s *Store) removeStrayFiles() error {
	files, err := dataFiles(s.dir)
	if err != nil {
		return err
	}
	for _, d := range s.disks {
		files = slices.DeleteFunc(files, func(path string) bool { return filepath.Base(path) == filepath.Base(d.path) })
	}
	for _, path := range files {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove stray data file: %w", err)
		}
		s.log.Info("data file of no disk removed", "file", filepath.Base(path))
	}
	return nil
}

// dataFiles are the paths of the data files in a directory, of whatever disks.
func dataFiles(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"+dataFileSuffix))
	if err != nil {
		return nil, fmt.Errorf("look for data files: %w", err)
	}
	return files, nil
}
