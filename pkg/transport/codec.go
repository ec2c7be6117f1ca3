package transport

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// codecName is the content-subtype of the stream: "application/grpc+umbra-frames".
const codecName = "umbra-frames"

// rawFrame is what the codec takes and gives: the bytes of one frame, in gRPC's own buffers.
type rawFrame struct{ data mem.BufferSlice }

// passThrough hands frames to gRPC and back as they are.
type passThrough struct{}

// A server finds the codec by the content-subtype of a call. gRPC allows registering it only while packages are initialized.
var _ = func() bool {
	encoding.RegisterCodecV2(passThrough{})
	return true
}()

// Marshal gives up the frame's reference to gRPC, which frees it when the bytes are out.
func (passThrough) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*rawFrame)
	if !ok {
		return nil, fmt.Errorf("sending %T on a replication stream", v)
	}
	return f.data, nil
}

// Unmarshal takes a reference of its own: gRPC frees its one at once.
func (passThrough) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*rawFrame)
	if !ok {
		return fmt.Errorf("receiving %T on a replication stream", v)
	}
	data.Ref()
	f.data = data
	return nil
}

// Name is the content-subtype.
func (passThrough) Name() string { return codecName }
