package api

import (
	"errors"
	"fmt"

	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// validate checks a message against the rules in its schema, and names every field that breaks one. prefix is where
// the message is in its request: empty, or a path with a dot at its end.
func validate(validator protovalidate.Validator, request proto.Message, prefix string) error {
	var options []protovalidate.ValidationOption
	if _, ok := request.(*umbrav1.UpdateDRPairRequest); ok {
		options = append(options, protovalidate.WithFilter(protovalidate.FilterFunc(changeable)))
	}
	err := validator.Validate(request, options...)
	if err == nil {
		return nil
	}
	var found *protovalidate.ValidationError
	if !errors.As(err, &found) {
		return fmt.Errorf("check %s against its schema: %w", request.ProtoReflect().Descriptor().Name(), err)
	}
	violations := make([]*errdetails.BadRequest_FieldViolation, len(found.Violations))
	for i, violation := range found.Violations {
		violations[i] = &errdetails.BadRequest_FieldViolation{
			Field: prefix + protovalidate.FieldPathString(violation.Proto.GetField()), Description: violation.Proto.GetMessage(),
		}
	}
	return invalidFields(violations...)
}

// changeable leaves out what an update need not send because it cannot change, and the policy: of that only the fields
// in the update mask count, which are checked together with the stored ones.
func changeable(_ protoreflect.Message, descriptor protoreflect.Descriptor) bool {
	switch descriptor.FullName() {
	case "umbra.v1.DRPair.main", "umbra.v1.DRPair.shadow", "umbra.v1.DRPair.policy":
		return false
	default:
		return true
	}
}
