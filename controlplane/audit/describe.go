package audit

import (
	"encoding/json"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const (
	requestBytesMax  = 4096
	resourceBytesMax = 512
)

// describe says what a request asks for.
func describe(event *store.AuditEvent, request any) {
	message, ok := request.(proto.Message)
	if !ok {
		return
	}
	message = proto.Clone(message)
	redact(message.ProtoReflect())
	event.Resource = cut(resource(message), resourceBytesMax)
	if named, ok := message.(interface{ GetRequestId() string }); ok {
		event.RequestID = cut(named.GetRequestId(), resourceBytesMax)
	}
	data, err := protojson.Marshal(message)
	switch {
	case err != nil:
		data, _ = json.Marshal("not shown: " + err.Error()) // a string always marshals
	case len(data) > requestBytesMax:
		data, _ = json.Marshal(cut(string(data), requestBytesMax))
	}
	event.Request = data
}

// resource is what a request is about, by the first of its fields that names something.
func resource(message proto.Message) string {
	fields := message.ProtoReflect().Descriptor().Fields()
	for _, c := range []struct{ field, prefix string }{
		{"name", ""}, {"host", ""}, {"client", "clients/"}, {"dr_pair_id", "drPairs/"},
	} {
		field := fields.ByName(protoreflect.Name(c.field))
		if field != nil && field.Kind() == protoreflect.StringKind && !field.IsList() {
			return c.prefix + message.ProtoReflect().Get(field).String()
		}
	}
	if update, ok := message.(*umbrav1.UpdateDRPairRequest); ok {
		return update.GetDrPair().GetName()
	}
	return ""
}

// redact clears what the schema marks as secret.
func redact(message protoreflect.Message) {
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		options, _ := field.Options().(*descriptorpb.FieldOptions)
		switch {
		case options.GetDebugRedact():
			message.Clear(field)
		case field.Message() == nil || field.IsMap():
		case field.IsList():
			for i := range value.List().Len() {
				redact(value.List().Get(i).Message())
			}
		default:
			redact(value.Message())
		}
		return true
	})
}

// cut is the text, or its beginning, as valid UTF-8.
func cut(text string, bytesMax int) string {
	if len(text) <= bytesMax {
		return text
	}
	for bytesMax > 0 && text[bytesMax]&0xC0 == 0x80 {
		bytesMax--
	}
	return text[:bytesMax] + "…"
}
