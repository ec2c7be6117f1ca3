package store

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// HostRecord is what is kept of a host, so that it can be shown while it is away. It is written at a slow beat.
type HostRecord struct {
	ID string
	// LastInventory is the host's last umbra.v1.Host message, encoded.
	LastInventory []byte
	// Time is when that was received.
	Time time.Time
}

// PutHost stores the record of a host in place of an earlier one.
func (s *Store) PutHost(ctx context.Context, record HostRecord) error {
	value, err := encode(record)
	if err != nil {
		return err
	}
	if _, err := s.client.Put(ctx, hostKey(record.ID), value); err != nil {
		return fmt.Errorf("store host %s: %w", record.ID, err)
	}
	return nil
}

// Hosts reads the records of all hosts, sorted by id.
func (s *Store) Hosts(ctx context.Context) ([]HostRecord, error) {
	response, err := s.client.Get(ctx, hosts, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("list hosts: %w", err)
	}
	records := make([]HostRecord, 0, len(response.Kvs))
	for _, kv := range response.Kvs {
		record, err := decode[HostRecord](kv)
		if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	return records, nil
}
