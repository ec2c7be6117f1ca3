// Package diagnostics answers the control plane's questions about a pair: its recovery points, and what a support
// bundle should hold of this host. hostd's log is kept in files of bounded size beside the journal, so that what happened before
// a crash is in the bundle too.
package diagnostics

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
	"gopkg.in/natefinch/lumberjack.v2"
	"libvirt.org/go/libvirtxml"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

const (
	logFileMegabytes = 16
	logFilesMax      = 3
	pairLogBytesMax  = 2 << 20
	lineBytesMax     = 64 << 10
)

// OpenLog is where hostd writes its log, in JSON lines.
func OpenLog(stateDir string) io.WriteCloser {
	return &lumberjack.Logger{Filename: logFile(stateDir), MaxSize: logFileMegabytes, MaxBackups: logFilesMax}
}

func logFile(stateDir string) string { return filepath.Join(stateDir, "hostd.log") }

// Answers answers. It is safe for concurrent use.
type Answers struct {
	StateDir   string
	Hypervisor hypervisor.Inventory
	// Store finds the store of a pair; an error when this host has none.
	Store func(pair string) (*recoverystore.Store, error)
	// Server is the name of the pair's server at this host, "" when not known.
	Server func(pair string) string
}

// RecoveryPoints lists the pair's complete points, newest first. NOT_FOUND when this host keeps no store of the pair.
func (a *Answers) RecoveryPoints(_ context.Context, pair string) ([]*umbrav1.RecoveryPoint, error) {
	store, err := a.Store(pair)
	if err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	points := store.Points()
	listed := make([]*umbrav1.RecoveryPoint, 0, len(points))
	for i, point := range points {
		listed = append(listed, describe(pair, point, i == len(points)-1))
	}
	slices.Reverse(listed)
	return listed, nil
}

// Held completes what is held of a pair whose shadow is here: what its newest point knows of the main server.
func (a *Answers) Held(_ context.Context, held *umbrav1.Held) {
	store, err := a.Store(held.GetAssignment().GetDrPair())
	if err != nil {
		return // then there is nothing to add
	}
	points := store.Points()
	held.RecoveryPointCount = int64(len(points))
	if len(points) == 0 {
		return
	}
	newest, err := store.Point(points[len(points)-1].ID)
	var domain libvirtxml.Domain
	if err == nil && domain.Unmarshal(newest.ServerXML) == nil {
		held.ProtectedServer, held.ProtectedServerUuid = domain.Name, domain.UUID
	}
}

func describe(pair string, point recoverystore.Point, newest bool) *umbrav1.RecoveryPoint {
	described := &umbrav1.RecoveryPoint{
		Name:         "drPairs/" + pair + "/recoveryPoints/" + string(point.ID),
		PointTime:    timestamppb.New(point.CreateTime),
		CompleteTime: timestamppb.New(point.CompleteTime),
		Consistency:  umbrav1.Consistency_CONSISTENCY_CRASH,
		ChangedBytes: point.ChangedBytes,
		Epoch:        point.Epoch,
		Damaged:      point.Damaged,
		InUse:        point.Pinned,
		Newest:       newest,
		Checkpoint:   point.Checkpoint,
	}
	if point.Consistency == recoverystore.ApplicationConsistent {
		described.Consistency = umbrav1.Consistency_CONSISTENCY_APPLICATION
	}
	for _, disk := range point.Disks {
		described.Disks = append(described.Disks, &umbrav1.RecoveryPointDisk{Target: disk.Name, SizeBytes: disk.SizeBytes})
	}
	return described
}

// Diagnostics gathers the pair's part of hostd's log and the hypervisor's view of the server. What cannot be had is
// told in a file of its own, so that there is always a bundle.
func (a *Answers) Diagnostics(ctx context.Context, pair string) ([]*umbrav1.DiagnosticsFile, error) {
	lines, err := pairLines(a.StateDir, pair)
	files := []*umbrav1.DiagnosticsFile{{Name: "hostd.log", Content: lines}}
	server := a.Server(pair)
	if server != "" {
		view, viewErr := a.Hypervisor.Diagnostics(ctx, server)
		err = errors.Join(err, viewErr)
		for name, content := range view {
			files = append(files, &umbrav1.DiagnosticsFile{Name: "hypervisor/" + name, Content: content})
		}
	}
	if err != nil {
		files = append(files, &umbrav1.DiagnosticsFile{Name: "errors.txt", Content: []byte(err.Error() + "\n")})
	}
	return files, nil
}

// pairLines are the newest lines of the log that name the pair.
func pairLines(stateDir, pair string) ([]byte, error) {
	older, err := filepath.Glob(filepath.Join(stateDir, "hostd-*.log"))
	if err != nil {
		return nil, fmt.Errorf("looking for older logs: %w", err)
	}
	slices.Sort(older)
	var lines []byte
	for _, name := range append(older, logFile(stateDir)) {
		found, err := grep(name, []byte(fmt.Sprintf("%q:%q", "pair", pair)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return lines, fmt.Errorf("reading the log: %w", err)
		}
		lines = append(lines, found...)
		if extra := len(lines) - pairLogBytesMax; extra > 0 {
			lines = lines[extra:]
			lines = lines[bytes.IndexByte(lines, '\n')+1:]
		}
	}
	return lines, nil
}

func grep(name string, part []byte) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var found []byte
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, lineBytesMax)
	for scanner.Scan() {
		if bytes.Contains(scanner.Bytes(), part) {
			found = append(append(found, scanner.Bytes()...), '\n')
		}
	}
	return found, scanner.Err()
}
