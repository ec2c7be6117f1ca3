// Package embedded runs a single etcd node inside the process, so that a control plane needs nothing installed: one
// directory holds all of its state. The node listens on nothing. Its client calls it directly, and speaks the same
// interface as one that is connected to an external cluster.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
)

const (
	// historyRetention is how long a watcher may have been away and still be told exactly what it missed.
	historyRetention = "1h"
	// progressInterval is how often an idle watch learns which revision it has reached. It is well below
	// historyRetention, so that a position that is kept up to date is never compacted.
	progressInterval = 10 * time.Second
	// backendBytesMax is many times what 100,000 pairs and their history take.
	backendBytesMax = 8 << 30
	directoryMode   = 0o700
)

// Start opens or creates the node that keeps its state in the directory, and returns a client of it once it serves.
// The context bounds the start only. stop ends client and node and waits for them; call it once. A directory that
// another process is using is an error, at once.
func Start(ctx context.Context, directory string, log *slog.Logger) (client *clientv3.Client, stop func() error, err error) {
	return start(ctx, directory, log, backendBytesMax)
}

// start is Start with a quota.
func start(ctx context.Context, directory string, log *slog.Logger, quotaBytes int64) (client *clientv3.Client, stop func() error, err error) {
	if err := os.MkdirAll(directory, directoryMode); err != nil {
		return nil, nil, fmt.Errorf("make the directory of the embedded etcd: %w", err)
	}
	lock, err := lockDirectory(directory)
	if err != nil {
		return nil, nil, err
	}
	server, err := embed.StartEtcd(config(directory, log, quotaBytes))
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start the embedded etcd in %s: %w", directory, err), lock.Close())
	}
	select {
	case <-server.Server.ReadyNotify():
	case err = <-server.Err():
	case <-server.Server.StopNotify():
		err = errors.New("it stopped by itself")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		server.Close()
		return nil, nil, errors.Join(fmt.Errorf("wait for the embedded etcd in %s: %w", directory, err), lock.Close())
	}
	client = v3client.New(server.Server)
	stop = func() error {
		err := client.Close()
		if errors.Is(err, context.Canceled) {
			err = nil // what a client without connections answers to every Close
		}
		server.Close()
		return errors.Join(err, lock.Close())
	}
	if err := makeRoom(ctx, server, client, log); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return client, stop, nil
}

func config(directory string, log *slog.Logger, quotaBytes int64) *embed.Config {
	config := embed.NewConfig()
	config.Name = "controlplane"
	config.Dir = filepath.Join(directory, "etcd")
	config.ListenPeerUrls, config.ListenClientUrls, config.ListenClientHttpUrls = nil, nil, nil
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.AutoCompactionMode = embed.CompactorModePeriodic
	config.AutoCompactionRetention = historyRetention
	// Alone, the node has nobody to wait for before it elects itself.
	config.TickMs, config.ElectionMs = 20, 200
	config.WatchProgressNotifyInterval = progressInterval
	config.QuotaBackendBytes = quotaBytes
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(&core{log: log}))
	return config
}

// lockDirectory takes the directory for this process. etcd would wait for its own lock without an end.
func lockDirectory(directory string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(directory, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the embedded etcd: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is in use by another control plane: %w", directory, err), lock.Close())
	}
	return lock, nil
}
