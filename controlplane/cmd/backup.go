package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/umbra-dr/umbra/controlplane/backup"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

type backupFlags struct {
	File       string `arg:"" help:"File to write. It is made for its owner alone, and is there only when it is whole."`
	UnixSocket string `help:"The control plane's unix socket." placeholder:"FILE" default:"/run/umbra/api.sock"`
}

type restoreFlags struct {
	File string `arg:"" help:"The backup."`
	recordsFlags
}

// saver writes the state of this control plane.
func saver(records *store.Store, stateDir string) func(context.Context, io.Writer) error {
	return func(ctx context.Context, to io.Writer) error {
		return backup.State{Records: records, Dir: stateDir}.Save(ctx, to, telemetry.ReadBuild().Version, clock.System.Now())
	}
}

// saveBackup asks the control plane for its state and writes it into a file.
func saveBackup(ctx context.Context, f backupFlags) (err error) {
	conn, err := grpc.NewClient("unix:"+f.UnixSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connecting to the control plane: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	stream, err := umbrav1.NewBackupServiceClient(conn).GetBackup(ctx, &umbrav1.GetBackupRequest{})
	if err != nil {
		return fmt.Errorf("asking for a backup: %w", err)
	}
	// Beside its place, so that renaming it there is one step.
	file, err := os.CreateTemp(filepath.Dir(f.File), "."+filepath.Base(f.File)+"-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("making the file: %w", err)
	}
	err = receive(stream, file)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		_, err = verify(file.Name())
	}
	if err == nil {
		err = os.Rename(file.Name(), f.File)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing the backup: %w", err), os.Remove(file.Name()))
	}
	fmt.Printf("%s: the state of the control plane, with the authority's key. Keep it as you keep that key.\n", f.File)
	return nil
}

func receive(stream grpc.ServerStreamingClient[umbrav1.GetBackupResponse], to io.Writer) error {
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := to.Write(part.GetChunk()); err != nil {
			return err
		}
	}
}

// verify reads all of a backup.
func verify(path string) (backup.Header, error) {
	file, err := os.Open(path)
	if err != nil {
		return backup.Header{}, fmt.Errorf("opening the backup: %w", err)
	}
	defer file.Close()
	return backup.Read(file, func(store.Item) error { return nil }, func(backup.Part) error { return nil })
}

// restore makes the state of a control plane from a backup, which is read once before anything is made of it.
func restore(ctx context.Context, f restoreFlags, log *slog.Logger) error {
	header, err := verify(f.File)
	if err != nil {
		return err
	}
	if err := backup.PrepareDir(f.StateDir); err != nil {
		return err
	}
	pairs, err := load(ctx, f, log)
	if err != nil {
		return err
	}
	if err := backup.FinishDir(f.StateDir); err != nil {
		return err
	}
	fmt.Printf(`The state of %s is restored, with %d pairs.
Start the control plane. Each pair waits until its hosts have said what they hold; nothing is started before that.
Not in it is what happened after that time: revoke again who was revoked since, and look at docs/backup.md.
`, header.Time.UTC().Format(time.RFC3339), pairs)
	return nil
}

func load(ctx context.Context, f restoreFlags, log *slog.Logger) (pairs int, err error) {
	file, err := os.Open(f.File)
	if err != nil {
		return 0, fmt.Errorf("opening the backup: %w", err)
	}
	defer file.Close()
	client, stop, err := openEtcd(ctx, f.recordsFlags, log)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	return backup.State{Records: store.New(client, log), Dir: f.StateDir}.Load(ctx, file)
}

// markRestored has every pair wait for what its hosts hold.
func markRestored(ctx context.Context, f recordsFlags, log *slog.Logger) (err error) {
	client, stop, err := openEtcd(ctx, f, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	pairs, err := store.New(client, log).MarkRestored(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%d pairs wait for what their hosts hold. Start the control planes.\n", pairs)
	return nil
}
