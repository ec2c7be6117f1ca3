package api_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestASupportBundleHoldsWhatIsKnownAndSaysWhatIsMissing(t *testing.T) {
	p := startPlane(t)
	p.protect()
	if _, err := p.failover.Failover(t.Context(), &umbrav1.FailoverRequest{Name: "drPairs/a"}); err != nil {
		t.Fatal(err)
	}
	stream, err := p.failover.GetSupportBundle(t.Context(), &umbrav1.GetSupportBundleRequest{Name: "drPairs/a"})
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		archive.Write(message.GetChunk())
	}
	files := unpack(t, &archive)
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	want := []string{
		"control-plane/hosts/main-host.json", "control-plane/hosts/shadow-host.json", "control-plane/main-report.json",
		"control-plane/record.json", "control-plane/shadow-report.json", "main-host/MISSING.txt", "operations.json", "pair.json",
		"shadow-host/etc/passwd", "shadow-host/hostd.log",
	}
	if !slices.Equal(names, want) {
		t.Errorf("the files are %q", names)
	}
	if text := string(files["main-host/MISSING.txt"]); !strings.Contains(text, "hosts/main-host") || !strings.Contains(text, "not connected") {
		t.Errorf("of the host that is away it says %q", text)
	}
	var operations umbrav1.ListOperationsResponse
	if err := protojson.Unmarshal(files["operations.json"], &operations); err != nil || len(operations.GetOperations()) != 1 {
		t.Errorf("operations.json holds %v, %v", &operations, err)
	}
	if len(files["shadow-host/hostd.log"]) != 1_600_000 {
		t.Errorf("the log has %d bytes", len(files["shadow-host/hostd.log"]))
	}
}

func unpack(t *testing.T, archive io.Reader) map[string][]byte {
	t.Helper()
	uncompressed, err := gzip.NewReader(archive)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for reader := tar.NewReader(uncompressed); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
	}
}
