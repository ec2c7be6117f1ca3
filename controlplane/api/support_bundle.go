package api

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const (
	// diagnosticsTimeout is how long a host may take to collect its files. One that is away must not hold up a bundle
	// that is asked for because of that.
	diagnosticsTimeout = 20 * time.Second
	// bundleChunk is how many bytes of the archive are sent at once.
	bundleChunk = 64 << 10
	// bundleOperationsMax is how many of the pair's operations a bundle holds, the newest.
	bundleOperationsMax = 1000
)

// GetSupportBundle sends an archive of what is known about a pair. What cannot be had, because a host is away, is
// said in a file.
func (s *failoverService) GetSupportBundle(request *umbrav1.GetSupportBundleRequest, stream umbrav1.FailoverService_GetSupportBundleServer) error {
	ctx := stream.Context()
	id, err := parseName("name", pairPrefix, request.GetName())
	if err != nil {
		return err
	}
	entry, err := s.storedPair(ctx, id, "")
	if err != nil {
		return err
	}
	files, err := s.bundle(ctx, entry.Record)
	if err != nil {
		return err
	}
	to := &chunkWriter{send: func(chunk []byte) error { return stream.Send(&umbrav1.GetSupportBundleResponse{Chunk: chunk}) }}
	return writeBundle(to, files, s.Clock.Now())
}

// bundle collects the files.
func (s *failoverService) bundle(ctx context.Context, record drpair.Record) ([]*umbrav1.DiagnosticsFile, error) {
	p := record.Pair
	var fromMain, fromShadow []*umbrav1.DiagnosticsFile
	var hosts errgroup.Group
	hosts.Go(func() error { fromMain = s.hostFiles(ctx, "main-host", p.Main.Host, p.ID); return nil })
	hosts.Go(func() error { fromShadow = s.hostFiles(ctx, "shadow-host", p.Shadow.Host, p.ID); return nil })
	_ = hosts.Wait() // hostFiles says in a file what failed
	files, err := s.ownFiles(ctx, record)
	if err != nil {
		return nil, err
	}
	return append(append(files, fromMain...), fromShadow...), nil
}

// ownFiles are what the control plane knows itself.
func (s *failoverService) ownFiles(ctx context.Context, record drpair.Record) ([]*umbrav1.DiagnosticsFile, error) {
	p := record.Pair
	operations, _, err := s.Store.Operations(ctx, p.ID, bundleOperationsMax, "")
	if err != nil {
		return nil, err
	}
	list := &umbrav1.ListOperationsResponse{}
	for _, operation := range operations {
		list.Operations = append(list.Operations, s.liveOperation(operation))
	}
	var files []*umbrav1.DiagnosticsFile
	add := func(name string, content []byte, failed error) {
		err = cmp.Or(err, failed)
		files = append(files, &umbrav1.DiagnosticsFile{Name: name, Content: content})
	}
	addMessage := func(name string, message proto.Message) {
		content, failed := protojson.MarshalOptions{Multiline: true}.Marshal(message)
		add(name, content, failed)
	}
	addMessage("pair.json", s.pair(record))
	addMessage("operations.json", list)
	stored, failed := json.MarshalIndent(record, "", "  ")
	add("control-plane/record.json", stored, failed)
	if main, ok := s.Observed.Main(p.ID); ok {
		addMessage("control-plane/main-report.json", main.Report)
	}
	if shadow, ok := s.Observed.Shadow(p.ID); ok {
		addMessage("control-plane/shadow-report.json", shadow.Report)
	}
	for _, id := range []string{p.Main.Host, p.Shadow.Host} {
		if host, ok := s.Observed.Host(id); ok {
			shown := hostMessage(host)
			shown.Servers = nil // those of other pairs are nobody's business here
			addMessage("control-plane/hosts/"+id+".json", shown)
		}
	}
	return files, err
}

// hostFiles are what a host knows, or one that says why that is missing.
func (s *failoverService) hostFiles(ctx context.Context, folder, host, pair string) []*umbrav1.DiagnosticsFile {
	ctx, cancel := context.WithTimeout(ctx, diagnosticsTimeout)
	defer cancel()
	files, err := s.Hosts.Diagnostics(ctx, host, pair)
	if err != nil {
		text := fmt.Sprintf("The files of %s are missing. Asking for them failed: %v\n", hostName(host), err)
		return []*umbrav1.DiagnosticsFile{{Name: folder + "/MISSING.txt", Content: []byte(text)}}
	}
	named := make([]*umbrav1.DiagnosticsFile, len(files))
	for i, file := range files {
		// Rooted before it is cleaned, a name cannot lead out of its folder.
		name := strings.TrimPrefix(path.Clean("/"+file.GetName()), "/")
		named[i] = &umbrav1.DiagnosticsFile{Name: path.Join(folder, cmp.Or(name, fmt.Sprintf("file-%d", i))), Content: file.GetContent()}
	}
	return named
}

func writeBundle(to *chunkWriter, files []*umbrav1.DiagnosticsFile, now time.Time) error {
	compressed := gzip.NewWriter(to)
	archive := tar.NewWriter(compressed)
	for _, file := range files {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: file.GetName(), Size: int64(len(file.GetContent())), Mode: 0o644, ModTime: now,
		}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("write %s into the support bundle: %w", file.GetName(), err)
		}
		if _, err := archive.Write(file.GetContent()); err != nil {
			return fmt.Errorf("write %s into the support bundle: %w", file.GetName(), err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("end the support bundle: %w", err)
	}
	if err := compressed.Close(); err != nil {
		return fmt.Errorf("end the support bundle: %w", err)
	}
	return to.flush()
}

// chunkWriter sends what is written to it in chunks.
type chunkWriter struct {
	send   func([]byte) error
	buffer bytes.Buffer
}

func (w *chunkWriter) Write(data []byte) (int, error) {
	w.buffer.Write(data)
	for w.buffer.Len() >= bundleChunk {
		if err := w.sendNext(bundleChunk); err != nil {
			return 0, err
		}
	}
	return len(data), nil
}

func (w *chunkWriter) flush() error {
	if w.buffer.Len() == 0 {
		return nil
	}
	return w.sendNext(w.buffer.Len())
}

// sendNext sends a copy: gRPC may keep what it is given, and the buffer is used again.
func (w *chunkWriter) sendNext(n int) error {
	return w.send(bytes.Clone(w.buffer.Next(n)))
}
