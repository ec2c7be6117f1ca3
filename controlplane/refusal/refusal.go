// Package refusal makes the errors that callers of the control plane get: a gRPC status with a stable reason and details.
package refusal

import (
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// Domain is the domain of every ErrorInfo.
const Domain = "umbra"

// Metadata are the details of an ErrorInfo by key.
type Metadata map[string]string

// New makes a status with an ErrorInfo that names the reason, and further details of google.rpc.
func New(code codes.Code, reason umbrav1.ErrorReason, info Metadata, message string, details ...protoadapt.MessageV1) error {
	all := append([]protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: Word(reason), Domain: Domain, Metadata: info}}, details...)
	plain := status.New(code, message)
	detailed, err := plain.WithDetails(all...)
	if err != nil { // only a detail that cannot be marshalled, such as text that is not UTF-8
		return plain.Err()
	}
	return detailed.Err()
}

// Word is a reason as callers see it: without the prefix of its enum.
func Word(reason umbrav1.ErrorReason) string {
	return strings.TrimPrefix(reason.String(), "ERROR_REASON_")
}
