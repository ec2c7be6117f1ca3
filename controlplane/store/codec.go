package store

import (
	"encoding/json"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/umbra-dr/umbra/controlplane/drpair"
)

// version is the format of the values that this package writes. Raise it when an older control plane would misread
// what is written.
const version = 1

type envelope[T any] struct {
	Version int `json:"version"`
	Value   T   `json:"value"`
}

// encode never fails for the types that are stored here: they hold no channels, functions or cycles.
func encode[T any](value T) (string, error) {
	data, err := json.Marshal(envelope[T]{Version: version, Value: value})
	if err != nil {
		return "", fmt.Errorf("encode %T: %w", value, err)
	}
	return string(data), nil
}

func decode[T any](kv *mvccpb.KeyValue) (T, error) {
	var read envelope[T]
	err := json.Unmarshal(kv.Value, &read)
	var none T
	switch {
	case read.Version > version:
		return none, &VersionError{Key: string(kv.Key), Found: read.Version, Known: version}
	case err != nil:
		return none, fmt.Errorf("decode the value of %s: %w", kv.Key, err)
	case read.Version < 1:
		return none, fmt.Errorf("decode the value of %s: it has no version", kv.Key)
	default:
		return read.Value, nil
	}
}

func decodeEntry(kv *mvccpb.KeyValue) (Entry, error) {
	record, err := decode[drpair.Record](kv)
	if err != nil {
		return Entry{}, err
	}
	return Entry{Record: record, Revision: kv.ModRevision}, nil
}
