package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// Version is the format that is written. Raise it when an earlier hostd would misread, or forget, what is written: not for a field
// or a kind of records that it can do without, and keep reading the version before.
const Version = 1

// ErrNewer says that a newer hostd wrote the journal in a format that is not known here. The file is left as it was.
var ErrNewer = errors.New("the journal was written by a newer hostd: start the newer hostd")

// The version is a record like any other, in a bucket of its own. A hostd from before there was one passes that bucket over.
const (
	format     = Kind("format")
	versionKey = "version"
)

// checkVersion is before anything else that is read or written. A journal without a version is of version 1: it has the buckets of
// that version and no others.
func checkVersion(tx *bbolt.Tx) error {
	b := tx.Bucket([]byte(format))
	if b == nil {
		return stamp(tx)
	}
	data := b.Get([]byte(versionKey))
	record, err := unseal(format, versionKey, data)
	if err != nil || bytes.Equal(record, data) { // a version always has its seal
		return fmt.Errorf("%w: its version is not what was stored", ErrCorrupt)
	}
	var found uint64
	if err := json.Unmarshal(record, &found); err != nil || found == 0 {
		return fmt.Errorf("%w: its version is %q", ErrCorrupt, record)
	}
	if found > Version {
		return fmt.Errorf("%w (it is of version %d, this hostd knows up to %d)", ErrNewer, found, Version)
	}
	return nil
}

// stamp is also for a journal that was there before there was a version: from then on, one that has none was damaged.
func stamp(tx *bbolt.Tx) error {
	if err := checkNames(tx); err != nil {
		return err
	}
	b, err := tx.CreateBucket([]byte(format))
	if err != nil {
		return err
	}
	return b.Put([]byte(versionKey), seal(format, versionKey, fmt.Appendf(nil, "%d", Version)))
}
