package flow_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// untar reads a support bundle to its end and returns the names of what is in it.
func untar(t *testing.T, stream grpc.ServerStreamingClient[umbrav1.GetSupportBundleResponse]) []string {
	t.Helper()
	var archive bytes.Buffer
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		archive.Write(part.GetChunk())
	}
	plain, err := gzip.NewReader(&archive)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for files := tar.NewReader(plain); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
}
