package simulation_test

import (
	"context"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"google.golang.org/protobuf/proto"
)

// within is a client that sees only keys of its own, so that many worlds share one etcd.
func within(ctx context.Context, etcd *clientv3.Client, prefix string) *clientv3.Client {
	client := clientv3.NewCtxClient(ctx)
	client.KV = namespace.NewKV(etcd.KV, prefix)
	client.Watcher = namespace.NewWatcher(ownEvents{etcd.Watcher}, prefix)
	client.Lease = namespace.NewLease(etcd.Lease, prefix)
	return client
}

// ownEvents gives each watcher events of its own: etcd in the same process gives all of them the same, and a namespace
// takes the prefix off the key where it is.
type ownEvents struct{ clientv3.Watcher }

func (w ownEvents) Watch(ctx context.Context, key string, options ...clientv3.OpOption) clientv3.WatchChan {
	shared, own := w.Watcher.Watch(ctx, key, options...), make(chan clientv3.WatchResponse)
	go func() {
		defer close(own)
		for response := range shared {
			events := make([]*clientv3.Event, len(response.Events))
			for i, event := range response.Events {
				events[i] = &clientv3.Event{Type: event.Type, Kv: ownPair(event.Kv), PrevKv: ownPair(event.PrevKv)}
			}
			response.Events = events
			select {
			case own <- response:
			case <-ctx.Done():
				return
			}
		}
	}()
	return own
}

func ownPair(kv *mvccpb.KeyValue) *mvccpb.KeyValue {
	if kv == nil {
		return nil
	}
	return proto.CloneOf(kv)
}
