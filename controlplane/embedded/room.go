package embedded

import (
	"context"
	"fmt"
	"log/slog"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// makeRoom is for a node that has reached its quota: it refuses every write until somebody has made room and disarmed the
// alarm. Nobody but this process reaches it, so that is done here, at each start. What it costs is the history: watchers
// of the API list again.
func makeRoom(ctx context.Context, server *embed.Etcd, client *clientv3.Client, log *slog.Logger) error {
	alarms, err := client.AlarmList(ctx)
	if err != nil {
		return fmt.Errorf("look for alarms of the embedded etcd: %w", err)
	}
	for _, alarm := range alarms.Alarms {
		if alarm.GetAlarm() != etcdserverpb.AlarmType_NOSPACE {
			continue
		}
		now, err := client.Get(ctx, "any", clientv3.WithCountOnly())
		if err != nil {
			return fmt.Errorf("read the revision of the embedded etcd: %w", err)
		}
		if _, err := client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
			return fmt.Errorf("compact the embedded etcd: %w", err)
		}
		if err := server.Server.Backend().Defrag(); err != nil {
			return fmt.Errorf("defragment the embedded etcd: %w", err)
		}
		if _, err := client.AlarmDisarm(ctx, (*clientv3.AlarmMember)(alarm)); err != nil {
			return fmt.Errorf("disarm the alarm of the embedded etcd: %w", err)
		}
		log.Warn("the embedded etcd had no space left; its history was dropped to make room")
	}
	return nil
}
