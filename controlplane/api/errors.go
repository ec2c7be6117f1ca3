package api

import (
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/protoadapt"

	"github.com/umbra-dr/umbra/controlplane/refusal"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// invalid says that a field of the request is not valid.
func invalid(field, format string, args ...any) error {
	return invalidFields(&errdetails.BadRequest_FieldViolation{Field: field, Description: fmt.Sprintf(format, args...)})
}

func invalidFields(violations ...*errdetails.BadRequest_FieldViolation) error {
	texts := make([]string, len(violations))
	for i, violation := range violations {
		texts[i] = violation.GetField() + ": " + violation.GetDescription()
	}
	return refusal.New(codes.InvalidArgument, umbrav1.ErrorReason_ERROR_REASON_INVALID_FIELD, nil,
		"invalid request: "+strings.Join(texts, "; "), &errdetails.BadRequest{FieldViolations: violations})
}

// notFound says that a named resource does not exist.
func notFound(resourceType, name string) error {
	return refusal.New(codes.NotFound, umbrav1.ErrorReason_ERROR_REASON_NOT_FOUND, nil, name+" does not exist",
		resourceInfo(resourceType, name, "It does not exist."))
}

func resourceInfo(resourceType, name, description string) *errdetails.ResourceInfo {
	return &errdetails.ResourceInfo{ResourceType: resourceType, ResourceName: name, Description: description}
}

// precondition says that something must change before the request can succeed.
func precondition(reason umbrav1.ErrorReason, subject string, info refusal.Metadata, message string, details ...protoadapt.MessageV1) error {
	failure := &errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{{
		Type: refusal.Word(reason), Subject: subject, Description: message,
	}}}
	return refusal.New(codes.FailedPrecondition, reason, info, message, append([]protoadapt.MessageV1{failure}, details...)...)
}

// internal says that something failed that the caller can do nothing about. The edge logs it.
func internal(err error) error {
	return refusal.New(codes.Internal, umbrav1.ErrorReason_ERROR_REASON_INTERNAL, nil, "internal: "+err.Error())
}
