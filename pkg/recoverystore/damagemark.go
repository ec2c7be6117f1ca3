package recoverystore

import (
	"fmt"

	"github.com/zeebo/xxh3"
	"go.etcd.io/bbolt"
)

// storedCluster is one version of a cluster: where it lies and what it should hash to.
type storedCluster struct {
	key  chunkKey
	cell int
	loc  uint64
	sum  Sum
}

func (c storedCluster) cluster() uint64 { return uint64(c.key.chunk)*ChunkClusters + uint64(c.cell) }

// markCorrupt notes that the index has a corrupt record; which points that concerns is worked out.
func (s *Store) markCorrupt() error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	err := s.update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(keyCorrupt, nil)
	})
	if err != nil {
		return fmt.Errorf("mark corrupt index record: %w", err)
	}
	return s.workOutDamage()
}

// markDamaged marks those of the suspects that are still referred to and still wrong when read again.
func (s *Store) markDamaged(suspects []storedCluster) error {
	if len(suspects) == 0 {
		return nil
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	marked := 0
	err := s.update(func(tx *bbolt.Tx) error {
		chunks, damage := chunksOf(tx), extentSet{tx.Bucket(bucketDamage)}
		for _, c := range suspects {
			if !chunks.refers(c) || s.readsWell(c) {
				continue
			}
			marked++
			if err := damage.insert(c.key.disk, extent{c.loc, 1}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("mark damaged clusters: %w", err)
	}
	if marked == 0 {
		return nil
	}
	s.log.Error("stored data is damaged", "clusters", marked)
	return s.workOutDamage()
}

// refers says whether a version of the chunk still has this cluster at this place.
func (s chunkStore) refers(c storedCluster) bool {
	var runs []run
	cur := s.locs.Cursor()
	for key, v := cur.Seek(entryKey(c.key, 0)); key != nil; key, v = cur.Next() {
		if k, _, ok := parseEntryKey(key); !ok || k != c.key {
			return false
		}
		var err error
		if runs, err = decodeRuns(runs[:0], key, v); err != nil {
			continue
		}
		for _, r := range runs {
			if !r.zero && r.first <= c.cell && c.cell < r.end() && r.loc+uint64(c.cell-r.first) == c.loc {
				return true
			}
		}
	}
	return false
}

func (s *Store) readsWell(c storedCluster) bool {
	d := s.disk(c.key.disk)
	buf := make([]byte, d.clusterBytes(c.cluster()))
	_, err := d.file.ReadAt(buf, int64(c.loc)*ClusterSize)
	return err == nil && xxh3.Hash128(buf) == c.sum
}
