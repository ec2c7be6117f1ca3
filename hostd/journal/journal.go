// Package journal is what a host must remember across a crash: its assignments, the epochs it has promised to
// refuse, and how far the work of each pair has come. One bbolt file; every Save is durable when it returns.
// What was done to the outside world is looked up in the outside world; only intentions and promises are here.
package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/umbra-dr/umbra/pkg/boltfile"
)

// Kind names a set of records, each keyed by pair. A kind is written by one package only.
type Kind string

// The kinds.
const (
	Assignments  Kind = "assignments"  // hostd/session: what the control plane last assigned
	Replicate    Kind = "replicate"    // hostd/replicate: checkpoints, what fencing did to the server
	Replica      Kind = "replica"      // hostd/replica: epochs that are refused
	ShadowServer Kind = "shadowserver" // hostd/shadowserver: attempts and their overlays
	Identity     Kind = "identity"     // hostd/enrolment: this host's key and certificate, under one name instead of a pair's
)

var kinds = []Kind{Assignments, Replicate, Replica, ShadowServer, Identity}

const lockTimeout = 10 * time.Second

// Journal is safe for concurrent use.
type Journal struct{ db *boltfile.DB }

// ErrCorrupt says that the journal was damaged by something else than hostd. It is all that this host has promised, so nothing is done
// without it.
var ErrCorrupt = errors.New("the journal is damaged; docs/troubleshooting.md says what to do")

// Open opens the journal in dir, which it makes if needed. It fails when another hostd holds it. Errors: ErrCorrupt, ErrNewer.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the journal's folder: %w", err)
	}
	path := filepath.Join(dir, "journal.db")
	db, err := boltfile.Open(context.Background(), path, 0o600, bbolt.Options{Timeout: lockTimeout})
	if err != nil {
		return nil, fmt.Errorf("opening the journal %s: %w", path, corrupt(err))
	}
	j := &Journal{db: db}
	err = j.update(prepare)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("preparing the journal %s: %w", path, err), db.Close())
	}
	return j, nil
}

// prepare makes what an earlier version did not have. A bucket that is missing while there is a name of no kind was not always
// missing.
func prepare(tx *bbolt.Tx) error {
	if err := checkVersion(tx); err != nil {
		return err
	}
	for _, kind := range kinds {
		if tx.Bucket([]byte(kind)) != nil {
			continue
		}
		if err := checkNames(tx); err != nil {
			return err
		}
		if _, err := tx.CreateBucket([]byte(kind)); err != nil {
			return err
		}
	}
	return checkRecords(tx)
}

// checkNames looks for a name of no kind.
func checkNames(tx *bbolt.Tx) error {
	return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if b == nil || Kind(name) != format && !slices.Contains(kinds, Kind(name)) {
			return fmt.Errorf("%w: it has records of a kind %q", ErrCorrupt, name)
		}
		return nil
	})
}

func (j *Journal) view(fn func(*bbolt.Tx) error) error { return corrupt(j.db.View(fn)) }

// update commits twice, the second time without a change. bbolt keeps two states, and opens the older one when the page that leads to
// the newer one is damaged; then that one has every promise too.
func (j *Journal) update(fn func(*bbolt.Tx) error) error {
	err := j.db.Update(fn)
	if err == nil {
		err = j.db.Update(func(*bbolt.Tx) error { return nil })
	}
	return corrupt(err)
}

func corrupt(err error) error {
	if errors.Is(err, boltfile.ErrCorrupt) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// Close closes the file.
func (j *Journal) Close() error { return j.db.Close() }

// Save stores the record of a pair, durably.
func Save[T any](j *Journal, kind Kind, pair string, record T) error {
	data, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encoding the %s record of pair %s: %w", kind, pair, err)
	}
	err = j.update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(kind)).Put([]byte(pair), seal(kind, pair, data)) })
	if err != nil {
		return fmt.Errorf("storing the %s record of pair %s: %w", kind, pair, err)
	}
	return nil
}

// Load gets the record of a pair. found is false when there is none.
func Load[T any](j *Journal, kind Kind, pair string) (record T, found bool, err error) {
	err = j.view(func(tx *bbolt.Tx) error {
		data := tx.Bucket([]byte(kind)).Get([]byte(pair))
		if data == nil {
			return nil
		}
		found = true
		data, err := unseal(kind, pair, data)
		if err != nil {
			return err
		}
		return json.Unmarshal(data, &record)
	})
	if err != nil {
		return record, false, fmt.Errorf("reading the %s record of pair %s: %w", kind, pair, err)
	}
	return record, found, nil
}

// All gets every record of a kind, by pair.
func All[T any](j *Journal, kind Kind) (map[string]T, error) {
	records := map[string]T{}
	err := j.view(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(kind)).ForEach(func(pair, data []byte) error {
			var record T
			data, err := unseal(kind, string(pair), data)
			if err != nil {
				return err
			}
			if err := json.Unmarshal(data, &record); err != nil {
				return fmt.Errorf("pair %s: %w", pair, err)
			}
			records[string(pair)] = record
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading the %s records: %w", kind, err)
	}
	return records, nil
}

// OtherPair tells whether a record that was made for the pair of one uid is of another pair than the one of the second:
// a pair that was removed and made again under its id is another one. A uid that is not known could be any.
func OtherPair(recorded, uid string) bool { return recorded != "" && uid != "" && recorded != uid }

// Delete removes the record of a pair. None is no error.
func Delete(j *Journal, kind Kind, pair string) error {
	err := j.update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(kind)).Delete([]byte(pair)) })
	if err != nil {
		return fmt.Errorf("removing the %s record of pair %s: %w", kind, pair, err)
	}
	return nil
}
