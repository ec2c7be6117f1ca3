package simulation_test

import (
	"context"
	"encoding/binary"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/umbra-dr/umbra/controlplane/embedded"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/transport"
)

// speech is how a later version speaks: every message, also those that are part of another one, has a field that is not known today,
// and each message of a session is followed by one of a kind that is not known, from a control plane also by a question that is not.
type speech struct {
	messages, frames, sessions atomic.Int64 // how many messages were altered, replication's among them; how many kinds were made up
}

// ofTomorrow is a field that no message has.
var ofTomorrow = protowire.AppendBytes(protowire.AppendTag(nil, 50_000, protowire.BytesType), []byte("something new"))

func (s *speech) ofServer() []grpc.ServerOption {
	if s == nil {
		return nil
	}
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(altering{encoding.GetCodecV2("proto"), s.messageOfTomorrow}),
		grpc.ChainStreamInterceptor(func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if info.FullMethod == umbrav1.HostSessionService_Session_FullMethodName {
				stream = planeOfTomorrow{stream, s}
			}
			return handler(server, stream)
		}),
	}
}

// ofReplication is for the server of a shadow host.
func (s *speech) ofReplication() []grpc.ServerOption {
	if s == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.ForceServerCodecV2(s.framesOfTomorrow(func() proto.Message { return &umbrav1.ShadowMessage{} }))}
}

func (s *speech) ofClient() []grpc.DialOption {
	if s == nil {
		return nil
	}
	codec := altering{encoding.GetCodecV2("proto"), s.messageOfTomorrow}
	frames := s.framesOfTomorrow(func() proto.Message { return &umbrav1.MainMessage{} })
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec)),
		grpc.WithChainStreamInterceptor(func(
			ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer, options ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			if method == transport.FullMethod {
				options = append(options, grpc.ForceCodecV2(frames)) // in place of the one that the stream asks for
			}
			stream, err := streamer(ctx, desc, conn, method, options...)
			if err == nil && method == umbrav1.HostSessionService_Session_FullMethodName {
				stream = hostOfTomorrow{stream, s}
			}
			return stream, err
		}),
	}
}

// altering is a codec that changes what another one has encoded, or is about to.
type altering struct {
	encoding.CodecV2
	alter func(encode func(v any) (mem.BufferSlice, error), v any) (mem.BufferSlice, error)
}

func (a altering) Marshal(v any) (mem.BufferSlice, error) { return a.alter(a.CodecV2.Marshal, v) }

func (s *speech) messageOfTomorrow(encode func(v any) (mem.BufferSlice, error), v any) (mem.BufferSlice, error) {
	message := proto.Clone(v.(proto.Message))
	addFields(message.ProtoReflect())
	s.messages.Add(1)
	return encode(message)
}

// framesOfTomorrow alters the messages in frames, and leaves data as it is.
func (s *speech) framesOfTomorrow(empty func() proto.Message) encoding.CodecV2 {
	const kindAt, countAt, bodyAt, controlKind = 0, 16, 24, 1
	return altering{encoding.GetCodecV2("umbra-frames"), func(encode func(v any) (mem.BufferSlice, error), v any) (mem.BufferSlice, error) {
		data, err := encode(v)
		if err != nil {
			return nil, err
		}
		frame := data.Materialize()
		if frame[kindAt] != controlKind {
			return data, nil
		}
		defer data.Free()
		message := empty()
		if err := proto.Unmarshal(frame[bodyAt:], message); err != nil {
			return nil, err
		}
		addFields(message.ProtoReflect())
		body, err := proto.Marshal(message)
		if err != nil {
			return nil, err
		}
		s.frames.Add(1)
		frame = append(frame[:bodyAt:bodyAt], body...)
		binary.BigEndian.PutUint64(frame[countAt:], uint64(len(body)))
		return mem.BufferSlice{mem.SliceBuffer(frame)}, nil
	}}
}

func addFields(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
			if field.MapValue().Message() != nil {
				value.Map().Range(func(_ protoreflect.MapKey, value protoreflect.Value) bool {
					addFields(value.Message())
					return true
				})
			}
		case field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				addFields(value.List().Get(i).Message())
			}
		default:
			addFields(value.Message())
		}
		return true
	})
	m.SetUnknown(append(m.GetUnknown(), ofTomorrow...))
}

type planeOfTomorrow struct {
	grpc.ServerStream
	speech *speech
}

func (p planeOfTomorrow) SendMsg(m any) error {
	if err := p.ServerStream.SendMsg(m); err != nil {
		return err
	}
	p.speech.sessions.Add(1)
	if err := p.ServerStream.SendMsg(&umbrav1.SessionResponse{}); err != nil {
		return err
	}
	const nobodysQuestion = 1 << 62
	return p.ServerStream.SendMsg(&umbrav1.SessionResponse{Message: &umbrav1.SessionResponse_Query{Query: &umbrav1.HostQuery{Id: nobodysQuestion}}})
}

type hostOfTomorrow struct {
	grpc.ClientStream
	speech *speech
}

func (h hostOfTomorrow) SendMsg(m any) error {
	if err := h.ClientStream.SendMsg(m); err != nil {
		return err
	}
	h.speech.sessions.Add(1)
	return h.ClientStream.SendMsg(&umbrav1.SessionRequest{})
}

// Whoever is newer: each side hears what a later version may say, and everything is done as always.
func TestAllIsDoneAsAlwaysWhenTheOtherSideIsNewer(t *testing.T) {
	etcd, stop, err := embedded.Start(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	network := newNetwork()
	network.speech = &speech{}
	tellOver(t, network, etcd, "from the protection to the commit", 1, umbrav1.OnMainReturn_ON_MAIN_RETURN_SHUT_DOWN, func(s *story) {
		before := len(s.logged.String())
		s.do(actRestart, replicating)
		s.do(actPause, paused)
		s.write()
		s.do(actResume, replicating)
		s.do(actFailover, failedOver)
		s.do(actChange, failedOver)
		s.do(actCommit, committed)
		for line := range strings.Lines(s.logged.String()[before:]) {
			if strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN") && !apart(line) {
				s.Errorf("in the log is %s", line)
			}
		}
		if n := strings.Count(s.logged.String(), "of a kind that is not known here"); n == 0 || n > 10 {
			s.Errorf("messages that are not known are logged %d times", n)
		}
	})
	if speech := network.speech; speech.messages.Load() == 0 || speech.frames.Load() == 0 || speech.sessions.Load() == 0 {
		t.Errorf("nothing new was said: %d messages, %d frames, %d in sessions", speech.messages.Load(), speech.frames.Load(), speech.sessions.Load())
	}
}

// apart tells whether the line says that one of the hosts has its newest assignment and the other has not yet: which of them is first is
// free, and how often the main host tries meanwhile.
func apart(line string) bool {
	return slices.ContainsFunc([]string{
		"the shadow host is in epoch", "the shadow host knows of restart", "the shadow host has not finished preparing",
	}, func(said string) bool { return strings.Contains(line, said) })
}
