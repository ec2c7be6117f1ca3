package journal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealBytes is a line end, which no record has, and a checksum in hex.
const sealBytes = 1 + 8

// seal appends the checksum of a record and of where it is.
func seal(kind Kind, pair string, record []byte) []byte {
	return fmt.Appendf(record, "\n%08x", sumOf(kind, pair, record))
}

func sumOf(kind Kind, pair string, record []byte) uint32 {
	return crc32.Update(crc32.Checksum(fmt.Appendf(nil, "%s/%s\n", kind, pair), castagnoli), castagnoli, record)
}

// unseal returns the record. One of an earlier version has no seal, and is all JSON.
func unseal(kind Kind, pair string, data []byte) ([]byte, error) {
	at := len(data) - sealBytes
	if at > 0 && data[at] == '\n' && bytes.Equal(data, seal(kind, pair, bytes.Clone(data[:at]))) {
		return data[:at], nil
	}
	if json.Valid(data) && !bytes.Contains(data, []byte("\n")) {
		return data, nil
	}
	return nil, fmt.Errorf("%w: the %s record of %q is not what was stored", ErrCorrupt, kind, pair)
}

// checkRecords looks at every record, so that a damaged one is not found out when it is too late.
func checkRecords(tx *bbolt.Tx) error {
	for _, kind := range kinds {
		err := tx.Bucket([]byte(kind)).ForEach(func(pair, data []byte) error {
			_, err := unseal(kind, string(pair), data)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
