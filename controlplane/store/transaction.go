package store

import (
	clientv3 "go.etcd.io/etcd/client/v3"
)

// transaction collects the parts of one etcd transaction.
type transaction struct {
	conditions []clientv3.Cmp
	effects    []clientv3.Op
}

func (t *transaction) absent(key string) {
	t.conditions = append(t.conditions, clientv3.Compare(clientv3.CreateRevision(key), "=", 0))
}

func (t *transaction) unchanged(key string, revision int64) {
	t.conditions = append(t.conditions, clientv3.Compare(clientv3.ModRevision(key), "=", revision))
}

func (t *transaction) put(key, value string, options ...clientv3.OpOption) {
	t.effects = append(t.effects, clientv3.OpPut(key, value, options...))
}

func (t *transaction) delete(key string) {
	t.effects = append(t.effects, clientv3.OpDelete(key))
}
