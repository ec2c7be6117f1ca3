// Package journal is what a host must remember across a crash: its assignments, the epochs it has promised to
// refuse, and how far the work of each pair has come. One bbolt file; every Save is durable when it returns.
// What was done to the outside world is looked up in the outside world; only intentions and promises are here.
package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
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

const lockTimeout = 10 * time.Second

// Journal is safe for concurrent use.
type Journal struct{ db *bbolt.DB }

// Open opens the journal in dir, which it makes if needed. It fails when another hostd holds it.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the journal's folder: %w", err)
	}
	path := filepath.Join(dir, "journal.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout})
	if err != nil {
		return nil, fmt.Errorf("opening the journal %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, kind := range []Kind{Assignments, Replicate, Replica, ShadowServer, Identity} {
			if _, err := tx.CreateBucketIfNotExists([]byte(kind)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("preparing the journal: %w", err), db.Close())
	}
	return &Journal{db: db}, nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.db.Close() }

// Save stores the record of a pair, durably.
func Save[T any](j *Journal, kind Kind, pair string, record T) error {
	data, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encoding the %s record of pair %s: %w", kind, pair, err)
	}
	err = j.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(kind)).Put([]byte(pair), data) })
	if err != nil {
		return fmt.Errorf("storing the %s record of pair %s: %w", kind, pair, err)
	}
	return nil
}

// Load gets the record of a pair. found is false when there is none.
func Load[T any](j *Journal, kind Kind, pair string) (record T, found bool, err error) {
	err = j.db.View(func(tx *bbolt.Tx) error {
		data := tx.Bucket([]byte(kind)).Get([]byte(pair))
		if data == nil {
			return nil
		}
		found = true
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
	err := j.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(kind)).ForEach(func(pair, data []byte) error {
			var record T
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
	err := j.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(kind)).Delete([]byte(pair)) })
	if err != nil {
		return fmt.Errorf("removing the %s record of pair %s: %w", kind, pair, err)
	}
	return nil
}
